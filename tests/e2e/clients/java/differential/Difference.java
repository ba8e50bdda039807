package differential;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.MissingNode;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;

/** One place in which two normalised responses are unlike. */
record Difference(String pointer, JsonNode kafka, JsonNode millstream) {
    private static final int SHOWN = 300;

    /** What differs, which is the outcome as a whole where only one of them answered. */
    static List<Difference> between(JsonNode kafka, JsonNode millstream) {
        List<Difference> found = new ArrayList<>();
        if (kafka.has("connection") != millstream.has("connection")) {
            found.add(new Difference("/connection", kafka, millstream));
            return found;
        }
        collect("", kafka, millstream, found);
        return found;
    }

    private static void collect(String pointer, JsonNode kafka, JsonNode millstream, List<Difference> found) {
        if (kafka.isObject() && millstream.isObject()) {
            Set<String> fields = new TreeSet<>();
            kafka.fieldNames().forEachRemaining(fields::add);
            millstream.fieldNames().forEachRemaining(fields::add);
            fields.forEach(field -> collect(pointer + "/" + field, kafka.path(field), millstream.path(field), found));
        } else if (!kafka.equals(millstream)) {
            found.add(new Difference(pointer, kafka, millstream));
        }
    }

    @Override
    public String toString() {
        return pointer + ": kafka=" + shown(kafka) + " millstream=" + shown(millstream);
    }

    private static String shown(JsonNode node) {
        String text = node instanceof MissingNode ? "(absent)" : node.toString();
        return text.length() > SHOWN ? text.substring(0, SHOWN) + "…" : text;
    }
}
