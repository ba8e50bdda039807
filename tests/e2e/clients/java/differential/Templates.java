package differential;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.fasterxml.jackson.databind.node.TextNode;
import java.util.Map;

/**
 * Bodies of requests that many steps share. {@code {"$template": "fetch", "topic": "t"}} stands for the template of that name with
 * the step's values, or else the template's own, in the places that it marks by their names: {@code <topic>}.
 */
final class Templates {
    private final JsonNode templates;

    Templates(JsonNode templates) {
        this.templates = templates;
    }

    JsonNode expand(JsonNode node) {
        if (node.has("$template")) {
            JsonNode template = templates.get(node.get("$template").asText());
            ObjectNode values = template.get("values").deepCopy();
            values.setAll((ObjectNode) expand(((ObjectNode) node.deepCopy()).without("$template")));
            return fill(template.get("body"), values);
        }
        if (node.isArray()) {
            ArrayNode expanded = JsonNodeFactory.instance.arrayNode();
            node.forEach(element -> expanded.add(expand(element)));
            return expanded;
        }
        if (!node.isObject()) {
            return node;
        }
        ObjectNode expanded = JsonNodeFactory.instance.objectNode();
        node.properties().forEach(field -> expanded.set(field.getKey(), expand(field.getValue())));
        return expanded;
    }

    private static JsonNode fill(JsonNode node, ObjectNode values) {
        if (node.isTextual()) {
            return fill(node.asText(), values);
        }
        if (node.isArray()) {
            ArrayNode filled = JsonNodeFactory.instance.arrayNode();
            node.forEach(element -> filled.add(fill(element, values)));
            return filled;
        }
        if (!node.isObject()) {
            return node;
        }
        ObjectNode filled = JsonNodeFactory.instance.objectNode();
        node.properties().forEach(field -> filled.set(field.getKey(), fill(field.getValue(), values)));
        return filled;
    }

    private static JsonNode fill(String text, ObjectNode values) {
        String filled = text;
        for (Map.Entry<String, JsonNode> value : values.properties()) {
            String mark = "<" + value.getKey() + ">";
            if (text.equals(mark)) {
                return value.getValue();
            }
            filled = filled.replace(mark, value.getValue().asText());
        }
        return TextNode.valueOf(filled);
    }
}
