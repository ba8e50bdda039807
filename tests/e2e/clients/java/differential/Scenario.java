package differential;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.stream.IntStream;
import java.util.stream.StreamSupport;
import org.apache.kafka.common.protocol.ApiKeys;

/**
 * Plays one scenario file to both brokers, step by step, and compares their answers. What a step may say is in the README beside the
 * scenario files. An answer that only reads state is asked for again for a moment while it differs, since Kafka applies changes late.
 */
final class Scenario {
    /** What came of a step: differences (none is a pass), or why it could not be compared. */
    record Outcome(String check, List<Difference> differences, String trouble) {}

    private static final Duration SETTLING = Duration.ofMillis(1500);
    private static final Duration PATIENCE = Duration.ofSeconds(15);
    private static final long PAUSE_MS = 50;
    private static final String UNSERVED = " isn't served";
    /** Not available yet: leader, coordinator loading, coordinator, and not the coordinator. */
    private static final Set<Integer> NOT_YET = Set.of(5, 14, 15, 16);
    private static final Set<String> READS = Set.of("Metadata", "Fetch", "ListOffsets", "OffsetFetch", "FindCoordinator", "ApiVersions");

    private final JsonNode script;
    private final String prefix;
    private final boolean texts;
    private final boolean answers;
    private final Side kafka;
    private final Side millstream;
    private final List<Outcome> outcomes = new ArrayList<>();

    Scenario(JsonNode script, String prefix, List<String> args, Side kafka, Side millstream) {
        this.script = script;
        this.prefix = prefix;
        this.texts = args.contains("--texts");
        this.answers = args.contains("--answers");
        this.kafka = kafka;
        this.millstream = millstream;
    }

    List<Outcome> play() throws Exception {
        for (Side side : List.of(kafka, millstream)) {
            side.greet(prefix);
            for (JsonNode topic : script.path("topics")) {
                create(side, topic);
            }
        }
        for (JsonNode written : script.get("steps")) {
            for (JsonNode step : cases(written)) {
                try {
                    play(step);
                } catch (IOException | RuntimeException | InterruptedException e) {
                    outcomes.add(new Outcome(step.path("check").asText(), List.of(), "the step itself failed: " + e));
                }
            }
        }
        return outcomes;
    }

    /** A step for each name and value of its cases, which stand where it says ${name} and ${value}. */
    private static List<JsonNode> cases(JsonNode written) throws IOException {
        if (!written.has("cases")) {
            return List.of(written);
        }
        ObjectNode template = written.deepCopy();
        template.remove("cases");
        ObjectMapper json = new ObjectMapper();
        List<JsonNode> steps = new ArrayList<>();
        for (Map.Entry<String, JsonNode> name : written.get("cases").properties()) {
            for (JsonNode value : name.getValue()) {
                String quoted = value.toString();
                steps.add(json.readTree(template.toString().replace("${name}", name.getKey())
                    .replace("${value}", quoted.substring(1, quoted.length() - 1))));
            }
        }
        return steps;
    }

    /** Makes a topic that steps need but do not test, and waits until the broker leads it. */
    private void create(Side side, JsonNode topic) throws Exception {
        String name = prefix + "-" + topic.get("name").asText();
        ObjectNode body = JsonNodeFactory.instance.objectNode().put("timeoutMs", 10_000);
        ObjectNode spec = body.putArray("topics").addObject().put("name", name);
        spec.put("numPartitions", topic.path("partitions").asInt(1)).put("replicationFactor", 1);
        topic.path("configs").properties().forEach(config ->
            spec.withArray("configs").addObject().put("name", config.getKey()).put("value", config.getValue().asText()));
        JsonNode created = side.call("main", ApiKeys.CREATE_TOPICS, (short) 7, body).at("/topics/0");
        if (created.path("errorCode").asInt(-1) != 0) {
            throw new IOException(side.name + " refuses the topic " + topic + ": " + created);
        }
        side.saved.put(topic.get("name").asText(), spec.get("name"));
        side.saved.put(topic.get("name").asText() + ".id", created.get("topicId"));
        settle(side, List.of(name));
    }

    private static void settle(Side side, List<String> names) throws IOException, InterruptedException {
        ObjectNode body = JsonNodeFactory.instance.objectNode().put("allowAutoTopicCreation", false);
        names.forEach(name -> body.withArray("topics").addObject().put("name", name));
        long deadline = System.nanoTime() + PATIENCE.toNanos();
        boolean led = false;
        while (!led && System.nanoTime() < deadline) {
            JsonNode topics = side.call("main", ApiKeys.METADATA, (short) 9, body).path("topics");
            led = StreamSupport.stream(topics.spliterator(), false).allMatch(topic -> topic.path("errorCode").asInt() == 0
                && topic.at("/partitions/0/leaderId").asInt(-1) >= 0);
            Thread.sleep(led ? 0 : PAUSE_MS);
        }
    }

    private void play(JsonNode step) throws Exception {
        String check = step.path("check").asText();
        if (step.has("raw")) {
            record(step, check, kafka.callRaw(step.get("raw").asText()), millstream.callRaw(step.get("raw").asText()));
        } else if (step.has("await")) {
            record(step, check, kafka.await(step.get("await").asText()), millstream.await(step.get("await").asText()));
        } else {
            request(step, check, Messages.api(step.get("api").asText()));
        }
    }

    private void request(JsonNode step, String check, ApiKeys api) throws Exception {
        boolean each = step.path("version").asText().equals("each");
        int[] served = IntStream.rangeClosed(api.oldestVersion(), api.latestVersion()).filter(v -> kafka.serves(api, v)).toArray();
        int[] both = IntStream.of(served).filter(v -> millstream.serves(api, v)).toArray();
        if (each) {
            for (int version : served) {
                exchange(step, check + ", v" + version, api, (short) version);
            }
            return;
        }
        int newest = both.length > 0 ? both[both.length - 1] : IntStream.of(served).max().orElse(api.latestVersion());
        exchange(step, check, api, (short) step.path("version").asInt(newest));
    }

    private void exchange(JsonNode step, String check, ApiKeys api, short version) throws Exception {
        String connection = step.path("conn").asText("main");
        JsonNode[] bodies = new JsonNode[2];
        for (Side side : List.of(kafka, millstream)) {
            try {
                bodies[side == kafka ? 0 : 1] = side.fill(step.path("body").isMissingNode() ? JsonNodeFactory.instance.objectNode()
                    : step.get("body"));
            } catch (Side.Unsaved unsaved) {
                String why = "needs ${" + unsaved.getMessage() + "}, which " + side.name + " didn't give";
                outcomes.add(new Outcome(check, List.of(), why));
                return;
            }
        }
        if (step.has("start")) {
            kafka.start(step.get("start").asText(), connection, api, version, bodies[0]);
            millstream.start(step.get("start").asText(), connection, api, version, bodies[1]);
            return;
        }
        boolean inSession = step.at("/body/sessionEpoch").asInt(-1) >= 0;
        boolean reads = !inSession && (READS.contains(api.name) || api.name.contains("Describe") || api.name.startsWith("List"));
        long deadline = System.nanoTime() + SETTLING.toNanos();
        ObjectNode[] both;
        do {
            CompletableFuture<ObjectNode> other =
                CompletableFuture.supplyAsync(() -> untilReady(millstream, step, api, version, bodies[1]));
            both = new ObjectNode[] {untilReady(kafka, step, api, version, bodies[0]), get(other)};
            Thread.sleep(reads && !alike(step, both) ? PAUSE_MS : 0);
        } while (reads && !alike(step, both) && System.nanoTime() < deadline);
        if (api == ApiKeys.CREATE_TOPICS && !step.at("/body/validateOnly").asBoolean()) {
            settleCreated(kafka, both[0]);
            settleCreated(millstream, both[1]);
        }
        record(step, check, both[0], both[1]);
    }

    private static void settleCreated(Side side, JsonNode answer) throws IOException, InterruptedException {
        List<String> created = StreamSupport.stream(answer.path("topics").spliterator(), false)
            .filter(topic -> topic.path("errorCode").asInt(-1) == 0).map(topic -> topic.get("name").asText()).toList();
        if (!created.isEmpty()) {
            settle(side, created);
        }
    }

    /** Asks until the broker's coordinators are there and what the step waits for has come, or its patience ends. */
    private static ObjectNode untilReady(Side side, JsonNode step, ApiKeys api, short version, JsonNode body) {
        long deadline = System.nanoTime() + PATIENCE.toNanos();
        try {
            if (!side.serves(api, version) && !step.path("unserved").asBoolean()) {
                return JsonNodeFactory.instance.objectNode().put("connection", api.name + " v" + version + UNSERVED);
            }
            while (true) {
                ObjectNode answer = side.call(step.path("conn").asText("main"), api, version, body);
                boolean ready = answer.findValues("errorCode").stream().noneMatch(code -> NOT_YET.contains(code.asInt())
                    || StreamSupport.stream(step.path("retry").spliterator(), false).anyMatch(listed -> listed.asInt() == code.asInt()));
                for (Map.Entry<String, JsonNode> wanted : step.path("until").properties()) {
                    ready &= same(answer.at(wanted.getKey()), wanted.getValue());
                }
                if (ready || System.nanoTime() > deadline) {
                    return answer;
                }
                Thread.sleep(PAUSE_MS);
            }
        } catch (IOException | InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }

    private static ObjectNode get(CompletableFuture<ObjectNode> answer) throws IOException, InterruptedException {
        try {
            return answer.get();
        } catch (ExecutionException e) {
            throw new IOException(e.getCause());
        }
    }

    private void record(JsonNode step, String check, ObjectNode fromKafka, ObjectNode fromMillstream) throws Exception {
        for (Map.Entry<String, JsonNode> save : step.path("save").properties()) {
            kafka.saved.put(save.getKey(), fromKafka.at(save.getValue().asText()));
            millstream.saved.put(save.getKey(), fromMillstream.at(save.getValue().asText()));
        }
        if (answers) {
            System.err.println(check + "\n  kafka=" + fromKafka + "\n  millstream=" + fromMillstream);
        }
        String trouble = unexpected(step, fromKafka);
        outcomes.add(new Outcome(check, differences(step, fromKafka, fromMillstream), trouble));
    }

    private boolean alike(JsonNode step, ObjectNode[] both) throws Side.Unsaved {
        return differences(step, both[0], both[1]).isEmpty() && unexpected(step, both[0]) == null;
    }

    /** Where Kafka itself doesn't answer as the step says, the step tests something else than it claims. */
    /** Numbers may be given as text. */
    private static boolean same(JsonNode got, JsonNode wanted) {
        return got.isValueNode() ? got.asText().equals(wanted.asText()) : got.toString().equals(wanted.isTextual() ? wanted.asText() : wanted.toString());
    }

    private String unexpected(JsonNode step, ObjectNode fromKafka) throws Side.Unsaved {
        for (String field : List.of("expect", "until")) {
            for (Map.Entry<String, JsonNode> expected : step.path(field).properties()) {
                JsonNode wanted = kafka.fill(expected.getValue());
                JsonNode got = fromKafka.at(expected.getKey());
                if (!same(got, wanted)) {
                    return "Kafka's answer has " + got + " at " + expected.getKey() + ", not " + wanted + ": " + fromKafka;
                }
            }
        }
        boolean unserved = fromKafka.path("connection").asText().endsWith(UNSERVED);
        return unserved && !step.path("unserved").asBoolean() ? "Kafka doesn't serve the version" : null;
    }

    private List<Difference> differences(JsonNode step, ObjectNode fromKafka, ObjectNode fromMillstream) {
        JsonNode[] normalised = new JsonNode[2];
        for (int i = 0; i < 2; i++) {
            ObjectNode answer = (i == 0 ? fromKafka : fromMillstream).deepCopy();
            for (JsonNode list : step.path("mine")) {
                if (answer.at(list.asText()) instanceof ArrayNode elements) {
                    Normaliser.keepOnly(elements, prefix);
                }
            }
            Side side = i == 0 ? kafka : millstream;
            normalised[i] = new Normaliser(prefix, side.saved.get("node"), side.saved, texts).normalise(answer);
        }
        return Difference.between(normalised[0], normalised[1]).stream().filter(difference -> !ignored(step, difference)).toList();
    }

    private static boolean ignored(JsonNode step, Difference difference) {
        return StreamSupport.stream(step.path("ignore").spliterator(), false)
            .anyMatch(pattern -> difference.pointer().matches(("\\Q" + pattern.asText() + "\\E").replace("*", "\\E.*\\Q")));
    }
}
