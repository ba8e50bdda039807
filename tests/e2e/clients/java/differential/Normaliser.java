package differential;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;

/**
 * Takes from a response what two equal brokers may say differently: generated ids, the time, addresses, epochs of leaders, sizes of
 * disks and the order of lists. An id that a scenario saved keeps its name, so that it is still seen where the same one must return.
 */
final class Normaliser {
    private static final JsonNodeFactory JSON = JsonNodeFactory.instance;
    private static final int ID_LENGTH = 16;
    private static final long DAY_MS = 86_400_000;
    private static final String NO_UUID = "AAAAAAAAAAAAAAAAAAAAAA";
    private static final Set<String> IDS = Set.of("topicId", "memberId", "leader", "producerId", "clusterId", "sessionId", "host", "port",
        "clientHost", "rack", "logDir", "clientInstanceId", "subscriptionId", "directoryId", "replicaDirectoryId", "hmac", "tokenId",
        "addressOfHost", "listener", "currentLeader");
    private static final Set<String> NODES = Set.of("nodeId", "brokerId", "leaderId", "controllerId", "replicaId", "replicaNodes",
        "isrNodes", "replicas", "leader");
    private static final Set<String> EPOCHS = Set.of("leaderEpoch", "partitionLeaderEpoch", "currentLeaderEpoch", "committedLeaderEpoch",
        "finalizedFeaturesEpoch", "brokerEpoch", "coordinatorEpoch", "partitionEpoch");
    private static final Set<String> SIZES = Set.of("totalBytes", "usableBytes", "logEndOffset", "partitionSize");
    private static final Set<String> TEXTS = Set.of("errorMessage", "batchIndexErrorMessage", "statusMessage", "documentation");
    /** What tells the elements of a list apart. Lists without any of these keep their order. */
    private static final List<String> KEYS = List.of("apiKey", "resourceType", "entityType", "entityName", "name",
        "topicName", "topic", "topicId", "partitionIndex", "index", "partition", "partitionId", "groupId", "resourceName", "memberId",
        "transactionalId", "nodeId", "brokerId", "producerId", "key", "user", "feature");

    private final String prefix;
    private final JsonNode node;
    private final Map<String, JsonNode> saved;
    private final boolean texts;

    Normaliser(String prefix, JsonNode node, Map<String, JsonNode> saved, boolean texts) {
        this.prefix = prefix;
        this.node = node;
        this.saved = saved;
        this.texts = texts;
    }

    JsonNode normalise(JsonNode response) {
        return of("", response);
    }

    private JsonNode of(String field, JsonNode value) {
        if (value.isObject()) {
            ObjectNode normalised = JSON.objectNode();
            value.properties().forEach(entry -> normalised.set(entry.getKey(), of(entry.getKey(), entry.getValue())));
            return normalised;
        }
        if (value.isArray()) {
            return list(field, value);
        }
        return scalar(field, value);
    }

    private JsonNode list(String field, JsonNode list) {
        List<JsonNode> elements = new ArrayList<>();
        list.forEach(element -> elements.add(of(field, element)));
        boolean plain = elements.isEmpty() || !elements.get(0).isObject();
        if (plain || !label(elements.get(0)).isEmpty()) {
            elements.sort(Comparator.comparing(JsonNode::toString));
        }
        if (plain) {
            return JSON.arrayNode().addAll(elements);
        }
        Map<String, JsonNode> labelled = new TreeMap<>();
        int position = 0;
        for (JsonNode element : elements) {
            String label = label(element);
            String unique = label.isEmpty() ? "[" + position + "]" : "[" + label + "]";
            for (int copy = 2; labelled.containsKey(unique); copy++) {
                unique = "[" + label + " #" + copy + "]";
            }
            labelled.put(unique, element);
            position++;
        }
        ObjectNode byLabel = JSON.objectNode();
        labelled.forEach(byLabel::set);
        return byLabel;
    }

    private static String label(JsonNode element) {
        if (element.has("records") && element.has("baseOffset") || element.has("headers")) {
            return element.path("baseOffset").asText(element.path("offset").asText());
        }
        List<String> parts = new ArrayList<>();
        for (String key : KEYS) {
            JsonNode part = element.path(key);
            boolean named = key.equals("topicId") && !parts.isEmpty();
            if (part.isValueNode() && !part.isNull() && !named) {
                parts.add(part.asText());
            }
        }
        // A quota is known by all that it is for.
        element.path("entity").forEach(part -> parts.add(part.path("entityType").asText()));
        return String.join(",", parts);
    }

    private JsonNode scalar(String field, JsonNode value) {
        if (value.isTextual()) {
            return JSON.textNode(text(field, value));
        }
        if (!value.isNumber()) {
            return value;
        }
        if (field.equals("throttleTimeMs")) {
            return JSON.numberNode(0);
        }
        if (NODES.contains(field) && value.asLong() == node.asLong()) {
            return JSON.textNode("<node>");
        }
        if (field.equals("subscriptionId")) {
            return JSON.textNode(nameOf(value));
        }
        if (value.asLong() < 0) {
            return value;
        }
        if (IDS.contains(field) && (value.asLong() > 0 || field.equals("producerId"))) {
            return JSON.textNode(nameOf(value));
        }
        if (EPOCHS.contains(field)) {
            return JSON.textNode("<epoch>");
        }
        if (SIZES.contains(field)) {
            return JSON.textNode("<size>");
        }
        boolean isTime = field.toLowerCase(Locale.ROOT).contains("timestamp") || field.endsWith("TimeMs");
        return isTime && Math.abs(value.asLong() - System.currentTimeMillis()) < DAY_MS ? JSON.textNode("<now>") : value;
    }

    private String text(String field, JsonNode value) {
        String text = value.asText();
        if (IDS.contains(field) && !text.isEmpty() && !text.equals(NO_UUID)) {
            return nameOf(value);
        }
        if (TEXTS.contains(field) && !texts && !text.isEmpty()) {
            return "<text>";
        }
        List<Map.Entry<String, JsonNode>> longestFirst = new ArrayList<>(saved.entrySet());
        longestFirst.sort(Comparator.comparing(variable -> -variable.getValue().asText().length()));
        for (Map.Entry<String, JsonNode> variable : longestFirst) {
            String id = variable.getValue().asText();
            text = id.length() >= ID_LENGTH && !id.equals(prefix) ? text.replace(id, "${" + variable.getKey() + "}") : text;
        }
        return text.replace(prefix, "p");
    }

    private String nameOf(JsonNode id) {
        for (Map.Entry<String, JsonNode> variable : saved.entrySet()) {
            boolean isId = !variable.getKey().startsWith("node") && !variable.getKey().toLowerCase(Locale.ROOT).contains("epoch");
            if (isId && variable.getValue().asText().equals(id.asText())) {
                return "${" + variable.getKey() + "}";
            }
        }
        return "<id>";
    }

    /** Leaves of a list that other scenarios and earlier runs also fill only what this scenario made. */
    static void keepOnly(ArrayNode list, String prefix) {
        for (int i = list.size() - 1; i >= 0; i--) {
            boolean mine = false;
            for (JsonNode field : list.get(i)) {
                mine |= field.isTextual() && field.asText().startsWith(prefix);
            }
            if (!mine) {
                list.remove(i);
            }
        }
    }
}
