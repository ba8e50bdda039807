package differential;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.fasterxml.jackson.databind.node.TextNode;
import java.io.IOException;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.kafka.common.protocol.ApiKeys;

/** One broker as one scenario sees it: its connections, and the values that were saved from its answers. */
final class Side implements AutoCloseable {
    /** A request needs a value that this broker never gave. */
    static final class Unsaved extends Exception {
        private static final long serialVersionUID = 1;

        Unsaved(String variable) {
            super(variable);
        }
    }

    private record Pending(ApiKeys api, short version, Connection connection) {}

    private static final int COORDINATORS = 3;
    private static final int SHARE = 2;
    private static final short FIND_COORDINATOR_VERSION = 6;
    private static final int NO_COORDINATOR_YET = 15;
    private static final int WAIT_S = 20;
    private static final long PAUSE_MS = 50;
    private static final Pattern VARIABLE = Pattern.compile("\\$\\{([\\w.]+)([+-]\\d+)?}");

    final String name;
    final Map<String, JsonNode> saved = new LinkedHashMap<>();
    private final String address;
    private final Map<Short, short[]> versions = new HashMap<>();
    private final Map<String, Connection> connections = new HashMap<>();
    private final Map<String, Pending> started = new HashMap<>();

    Side(String name, String address) {
        this.name = name;
        this.address = address;
    }

    /** Asks which versions there are, and which node answers. */
    void greet(String prefix) throws Exception {
        JsonNode answer = call("main", ApiKeys.API_VERSIONS, (short) 3, JsonNodeFactory.instance.objectNode()
            .put("clientSoftwareName", "differential").put("clientSoftwareVersion", "1"));
        for (JsonNode key : answer.get("apiKeys")) {
            versions.put((short) key.get("apiKey").asInt(),
                new short[] {(short) key.get("minVersion").asInt(), (short) key.get("maxVersion").asInt()});
        }
        JsonNode cluster = call("main", ApiKeys.DESCRIBE_CLUSTER, (short) 0, JsonNodeFactory.instance.objectNode());
        saved.put("p", TextNode.valueOf(prefix));
        saved.put("node", cluster.at("/brokers/0/brokerId"));
        saved.put("node.name", TextNode.valueOf(saved.get("node").asText()));
        saved.put("cluster", cluster.get("clusterId"));
        for (int type = 0; type < COORDINATORS; type++) {
            awaitCoordinator(type, type == SHARE ? prefix + ":AAAAAAAAAAAAAAAAAAAAAQ:0" : prefix);
        }
    }

    /** A new broker makes the topics of its coordinators when they are first looked for. */
    private void awaitCoordinator(int type, String key) throws IOException, InterruptedException {
        ObjectNode body = JsonNodeFactory.instance.objectNode().put("keyType", type);
        body.putArray("coordinatorKeys").add(key);
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(WAIT_S);
        while (call("main", ApiKeys.FIND_COORDINATOR, FIND_COORDINATOR_VERSION, body).at("/coordinators/0/errorCode").asInt()
            == NO_COORDINATOR_YET && System.nanoTime() < deadline) {
            Thread.sleep(PAUSE_MS);
        }
    }

    boolean serves(ApiKeys api, int version) {
        short[] range = versions.get(api.id);
        return range != null && range[0] <= version && version <= range[1];
    }

    /** Sends a request and says how it ended: the answer, or {@code {"connection": "closed"}} where the broker hung up. */
    ObjectNode call(String connection, ApiKeys api, short version, JsonNode body) throws IOException {
        start(connection, connection, api, version, body);
        return await(connection);
    }

    void start(String handle, String connection, ApiKeys api, short version, JsonNode body) throws IOException {
        Connection open = connection(connection);
        open.send(api, version, Messages.request(api, version, body));
        started.put(handle, new Pending(api, version, open));
    }

    ObjectNode await(String handle) throws IOException {
        Pending pending = started.remove(handle);
        try {
            return Messages.response(pending.connection.receive(pending.api, pending.version), pending.version);
        } catch (Connection.NoAnswer none) {
            drop(pending.connection);
            return JsonNodeFactory.instance.objectNode().put("connection", none.getMessage());
        }
    }

    /** Sends a frame as it is. The answer is shown without its correlation id. */
    ObjectNode callRaw(String frame) throws IOException {
        ObjectNode outcome = JsonNodeFactory.instance.objectNode();
        try (Connection raw = new Connection(address)) {
            raw.sendRaw(HexFormat.of().parseHex(frame.replace(" ", "")));
            return outcome.put("answer", HexFormat.of().formatHex(raw.receiveRaw()));
        } catch (Connection.NoAnswer none) {
            return outcome.put("connection", none.getMessage());
        }
    }

    private Connection connection(String name) throws IOException {
        if (!connections.containsKey(name)) {
            connections.put(name, new Connection(address));
        }
        return connections.get(name);
    }

    private void drop(Connection connection) throws IOException {
        connections.values().remove(connection);
        connection.close();
    }

    /** A body with the saved values in place of ${…}, with numbers added to them if asked for, with batches built and texts repeated. */
    JsonNode fill(JsonNode template) throws Unsaved {
        if (template.isTextual()) {
            return fill(template.asText());
        }
        if (template.isArray()) {
            ArrayNode filled = JsonNodeFactory.instance.arrayNode();
            for (JsonNode element : template) {
                filled.add(fill(element));
            }
            return filled;
        }
        if (!template.isObject()) {
            return template;
        }
        ObjectNode filled = JsonNodeFactory.instance.objectNode();
        for (Map.Entry<String, JsonNode> field : template.properties()) {
            filled.set(fill(field.getKey()).asText(), fill(field.getValue()));
        }
        if (filled.has("$repeat")) {
            return TextNode.valueOf(filled.get("$repeat").asText().repeat(filled.get("times").asInt()));
        }
        return filled.has("$batch") ? JsonNodeFactory.instance.binaryNode(Batches.build(filled.get("$batch"))) : filled;
    }

    private JsonNode fill(String text) throws Unsaved {
        Matcher variable = VARIABLE.matcher(text);
        StringBuilder filled = new StringBuilder();
        while (variable.find()) {
            JsonNode value = variable.group(1).equals("now") ? JsonNodeFactory.instance.numberNode(System.currentTimeMillis())
                : saved.get(variable.group(1));
            if (value == null || value.isMissingNode()) {
                throw new Unsaved(variable.group(1));
            }
            if (variable.group(2) != null) {
                value = JsonNodeFactory.instance.numberNode(value.asLong() + Long.parseLong(variable.group(2)));
            }
            if (variable.group().equals(text)) {
                return value;
            }
            variable.appendReplacement(filled, Matcher.quoteReplacement(value.asText()));
        }
        return TextNode.valueOf(variable.appendTail(filled).toString());
    }

    @Override
    public void close() throws IOException {
        for (Connection connection : connections.values()) {
            connection.close();
        }
    }
}
