package differential;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.File;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;

/**
 * Sends the same requests to Apache Kafka and to Millstream and compares the answers. Each file of requests is a scenario and each
 * step of it a check, printed as one JSON line when its scenario ends; stderr shows the differences for people. With --same both
 * brokers are Kafka, and nothing may differ: that shows what is normalised to be right.
 */
public final class Differential {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final long DEADLINE_S = 240;
    private static final int AT_ONCE = 4;
    private static final Set<String> NO_SCENARIOS = Set.of("accepted.json", "templates.json");

    private final List<String> args;
    private final Accepted accepted;
    private final Templates templates;
    private boolean failed;

    private Differential(List<String> args, Accepted accepted, Templates templates) {
        this.args = args;
        this.accepted = accepted;
        this.templates = templates;
    }

    public static void main(String[] arguments) throws Exception {
        List<String> args = Arrays.asList(arguments);
        if (option(args, "--kafka") == null || option(args, "--bootstrap") == null || option(args, "--scenarios") == null) {
            System.err.println("usage: Differential --kafka HOST:PORT --bootstrap HOST:PORT --scenarios DIRECTORY [--only NAME,NAME]"
                + " [--texts] [--answers] [--show-accepted] [--same]");
            System.exit(2);
        }
        File directory = new File(option(args, "--scenarios"));
        Accepted accepted = new Accepted(args.contains("--same") ? null : new File(directory, "accepted.json"));
        Templates templates = new Templates(JSON.readTree(new File(directory, "templates.json")));
        Differential run = new Differential(args, accepted, templates);
        String only = option(args, "--only");
        Set<String> chosen = only == null ? Set.of() : Set.of(only.split(","));
        List<File> files = Arrays.stream(directory.listFiles()).filter(file -> file.getName().endsWith(".json"))
            .filter(file -> !NO_SCENARIOS.contains(file.getName())).filter(file -> chosen.isEmpty() || chosen.contains(nameOf(file)))
            .sorted().toList();
        run.all(files);
        if (chosen.isEmpty()) {
            accepted.stale().forEach(entry -> run.print("accepted", "the accepted difference still occurs: " + entry, "fail",
                "it no longer does: remove it"));
        }
        System.out.flush();
        Runtime.getRuntime().halt(run.failed ? 1 : 0);
    }

    private static String option(List<String> args, String name) {
        int at = args.indexOf(name);
        return at < 0 || at + 1 == args.size() ? null : args.get(at + 1);
    }

    private static String nameOf(File file) {
        return file.getName().replaceFirst("\\.json$", "");
    }

    /** Plays scenarios side by side, but those that change what others see (they say "alone") one by one afterwards. */
    private void all(List<File> files) throws Exception {
        List<Callable<Void>> together = new ArrayList<>();
        List<Callable<Void>> alone = new ArrayList<>();
        for (File file : files) {
            JsonNode script = templates.expand(JSON.readTree(file));
            (script.path("alone").asBoolean() ? alone : together).add(() -> {
                play(nameOf(file), script);
                return null;
            });
        }
        ExecutorService threads = Executors.newFixedThreadPool(AT_ONCE);
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(DEADLINE_S);
        List<Future<Void>> unfinished = threads.invokeAll(together, DEADLINE_S, TimeUnit.SECONDS);
        for (Callable<Void> scenario : alone) {
            unfinished.addAll(threads.invokeAll(List.of(scenario), end - System.nanoTime(), TimeUnit.NANOSECONDS));
        }
        if (unfinished.stream().anyMatch(Future::isCancelled)) {
            print("deadline", "every scenario ends in time", "fail", "not within " + DEADLINE_S + " s");
        }
        threads.shutdownNow();
    }

    private void play(String name, JsonNode script) {
        String prefix = "d" + Long.toString(System.nanoTime() % 2_176_782_336L, Character.MAX_RADIX) + "-" + name;
        try (Side one = new Side("Kafka", option(args, "--kafka"));
            Side other = new Side("Millstream", option(args, "--bootstrap"))) {
            List<Scenario.Outcome> outcomes = new Scenario(script, prefix, args, one, other).play();
            outcomes.forEach(outcome -> report(name, outcome));
        } catch (Exception | Error e) {
            print(name, "the scenario can be played", "fail", e.toString());
        }
    }

    private void report(String scenario, Scenario.Outcome outcome) {
        List<String> meant = new ArrayList<>();
        List<String> different = new ArrayList<>();
        for (Difference difference : outcome.differences()) {
            accepted.reason(scenario, outcome.check(), difference).ifPresentOrElse(
                because -> meant.add(difference + " accepted: " + because), () -> different.add(difference.toString()));
        }
        if (args.contains("--show-accepted")) {
            meant.forEach(line -> System.err.println(scenario + " / " + outcome.check() + " " + line));
        }
        if (outcome.trouble() != null) {
            different.add(0, outcome.trouble());
        }
        print(scenario, outcome.check(), different.isEmpty() ? "pass" : "fail", different.stream().collect(Collectors.joining("\n  ")));
    }

    private synchronized void print(String feature, String check, String result, String detail) {
        failed |= result.equals("fail");
        ObjectNode line = JsonNodeFactory.instance.objectNode().put("client", "differential").put("feature", feature);
        line.put("check", check).put("result", result);
        if (!detail.isEmpty()) {
            line.put("detail", detail);
        }
        System.out.println(line);
        if (result.equals("fail")) {
            System.err.println(feature + " / " + check + "\n  " + detail);
        }
    }
}
