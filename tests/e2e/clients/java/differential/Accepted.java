package differential;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.File;
import java.io.IOException;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.regex.Pattern;

/** The differences that are meant, each with its reason. One that no longer occurs is an error: the list must not outlive its reasons. */
final class Accepted {
    private record Entry(Pattern scenario, Pattern check, Pattern pointer, String because, String shown) {}

    private final List<Entry> entries = new ArrayList<>();
    private final Set<Entry> used = new HashSet<>();

    /** Reads the list, or accepts nothing without one. */
    Accepted(File file) throws IOException {
        if (file == null) {
            return;
        }
        for (JsonNode entry : new ObjectMapper().readTree(file)) {
            String because = entry.path("because").asText();
            if (because.isBlank()) {
                throw new IOException("an accepted difference without a reason: " + entry);
            }
            entries.add(new Entry(glob(entry.path("scenario")), glob(entry.path("check")), glob(entry.path("pointer")), because,
                entry.path("scenario").asText() + "/" + entry.path("check").asText() + entry.path("pointer").asText()));
        }
    }

    /** Why a difference is accepted, if it is. */
    synchronized Optional<String> reason(String scenario, String check, Difference difference) {
        List<Entry> matching = entries.stream().filter(entry -> entry.scenario.matcher(scenario).matches()
            && entry.check.matcher(check).matches() && entry.pointer.matcher(difference.pointer()).matches()).toList();
        used.addAll(matching);
        return matching.stream().map(Entry::because).findFirst();
    }

    synchronized List<String> stale() {
        return entries.stream().filter(entry -> !used.contains(entry)).map(Entry::shown).toList();
    }

    /** A pattern in which * stands for any text; left out, anything matches. */
    private static Pattern glob(JsonNode pattern) {
        String text = pattern.asText("*");
        return Pattern.compile(("\\Q" + text + "\\E").replace("*", "\\E.*\\Q"), Pattern.DOTALL);
    }
}
