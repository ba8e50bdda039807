import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

import org.apache.kafka.common.utils.AppInfoParser;

/**
 * Runs checks side by side and prints one JSON line for each as it ends: what was claimed of the broker, and whether it held.
 *
 * A check that takes longer than its time fails and says where it hangs; so do all that the time for the whole run leaves undone.
 */
final class Checks {
    /** A claim's proof: it returns if the claim holds. */
    interface Proof {
        void run() throws Exception;
    }

    /** Thrown by a check whose claim does not hold. */
    static final class Broken extends RuntimeException {
        Broken(String what) {
            super(what);
        }
    }

    private record Check(String feature, String claim, Proof proof) { }

    private final List<Check> checks = new ArrayList<>();
    private final List<Check> afterwards = new ArrayList<>();
    private final Set<String> features;
    private final Duration each;
    private final List<Check> open = new ArrayList<>();
    private boolean failed;

    /** Checks of these features alone, or of all if there are none, with so much time for each of them. */
    Checks(Set<String> features, Duration each) {
        this.features = features;
        this.each = each;
    }

    void add(String feature, String claim, Proof proof) {
        if (features.isEmpty() || features.contains(feature)) {
            checks.add(new Check(feature, claim, proof));
        }
    }

    /** A check on what the others did, run when they are through. */
    void addLast(String feature, String claim, Proof proof) {
        if (features.isEmpty() || features.contains(feature)) {
            afterwards.add(new Check(feature, claim, proof));
        }
    }

    /** Runs everything, so many checks at a time; true if nothing failed. */
    boolean run(int atOnce, Duration all) throws InterruptedException {
        open.addAll(checks);
        open.addAll(afterwards);
        long end = System.nanoTime() + all.toNanos();
        for (List<Check> part : List.of(checks, afterwards)) {
            ExecutorService pool = Executors.newFixedThreadPool(atOnce, task -> daemon(task, "check"));
            part.forEach(check -> pool.execute(() -> prove(check)));
            pool.shutdown();
            pool.awaitTermination(end - System.nanoTime(), TimeUnit.NANOSECONDS);
        }
        for (Check late : List.copyOf(open)) {
            report(late, "fail", "not done when the time for all checks, " + all.toSeconds() + " s, was over");
        }
        return !failed;
    }

    private void prove(Check check) {
        Throwable[] thrown = new Throwable[1];
        Thread proof = daemon(() -> {
            try {
                check.proof.run();
            } catch (Throwable problem) {
                thrown[0] = problem;
            }
        }, "proof");
        proof.start();
        try {
            proof.join(each.toMillis());
        } catch (InterruptedException stopped) {
            Thread.currentThread().interrupt();
        }
        if (proof.isAlive()) {
            report(check, "fail", "hangs after " + each.toSeconds() + " s" + place(proof.getStackTrace()));
            proof.interrupt();
        } else if (thrown[0] != null) {
            report(check, "fail", describe(thrown[0]));
        } else {
            report(check, "pass", null);
        }
    }

    private synchronized void report(Check check, String result, String detail) {
        if (!open.remove(check)) {
            return;
        }
        failed |= result.equals("fail");
        String line = "{\"client\":" + json("kafka-clients " + AppInfoParser.getVersion()) + ",\"feature\":" + json(check.feature)
            + ",\"check\":" + json(check.claim) + ",\"result\":" + json(result);
        System.out.println(line + (detail == null ? "}" : ",\"detail\":" + json(detail) + "}"));
        System.out.flush();
    }

    private static Thread daemon(Runnable task, String name) {
        Thread thread = new Thread(task, name);
        thread.setDaemon(true);
        return thread;
    }

    private static String describe(Throwable problem) {
        StringBuilder text = new StringBuilder();
        for (Throwable cause = problem; cause != null; cause = cause.getCause()) {
            text.append(text.isEmpty() ? "" : " <- ");
            text.append(cause instanceof Broken ? cause.getMessage() : cause.getClass().getSimpleName() + ": " + cause.getMessage());
        }
        return text + place(problem.getStackTrace());
    }

    /** The innermost of these programs' own lines on the stack, which are the ones without a package. */
    private static String place(StackTraceElement[] stack) {
        for (StackTraceElement frame : stack) {
            if (!frame.getClassName().contains(".") && !frame.getClassName().startsWith("Expect")) {
                return " (" + frame.getFileName() + ":" + frame.getLineNumber() + ")";
            }
        }
        return "";
    }

    private static String json(String text) {
        StringBuilder quoted = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            switch (c) {
                case '"' -> quoted.append("\\\"");
                case '\\' -> quoted.append("\\\\");
                case '\n' -> quoted.append("\\n");
                default -> quoted.append(c < 0x20 ? String.format("\\u%04x", (int) c) : c);
            }
        }
        return quoted.append('"').toString();
    }
}
