package differential;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.DescribeConfigsOptions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.protocol.ApiKeys;

/** Prints every config of a topic, a broker, a group and a client-metrics resource, and the versions a broker serves, as one JSON. */
final class Configs {
    private static final short API_VERSIONS = 4;

    private Configs() {}

    public static void main(String[] args) throws Exception {
        if (args.length != 2 || !args[0].equals("--bootstrap")) {
            System.err.println("usage: Configs --bootstrap HOST:PORT");
            System.exit(2);
        }
        Properties properties = new Properties();
        properties.put("bootstrap.servers", args[1]);
        properties.put("request.timeout.ms", "20000");
        properties.put("default.api.timeout.ms", "20000");
        ObjectNode all = JsonNodeFactory.instance.objectNode();
        try (Admin admin = Admin.create(properties)) {
            String node = admin.describeCluster().nodes().get().iterator().next().idString();
            String name = "configs-" + System.nanoTime();
            admin.createTopics(List.of(new NewTopic(name, Optional.of(1), Optional.empty()))).all().get();
            describe(admin, all, "topic", new ConfigResource(ConfigResource.Type.TOPIC, name));
            describe(admin, all, "broker", new ConfigResource(ConfigResource.Type.BROKER, node));
            describe(admin, all, "broker default", new ConfigResource(ConfigResource.Type.BROKER, ""));
            describe(admin, all, "broker logger", new ConfigResource(ConfigResource.Type.BROKER_LOGGER, node));
            describe(admin, all, "group", new ConfigResource(ConfigResource.Type.GROUP, name));
            describe(admin, all, "client metrics", new ConfigResource(ConfigResource.Type.CLIENT_METRICS, name));
            admin.deleteTopics(List.of(name)).all().get();
        }
        try (Connection connection = new Connection(args[1])) {
            connection.send(ApiKeys.API_VERSIONS, API_VERSIONS, Messages.request(ApiKeys.API_VERSIONS, API_VERSIONS,
                JsonNodeFactory.instance.objectNode().put("clientSoftwareName", "differential").put("clientSoftwareVersion", "1")));
            all.set("api versions", Messages.response(connection.receive(ApiKeys.API_VERSIONS, API_VERSIONS), API_VERSIONS));
        }
        System.out.println(new ObjectMapper().writerWithDefaultPrettyPrinter().writeValueAsString(all));
    }

    private static void describe(Admin admin, ObjectNode all, String kind, ConfigResource resource) throws InterruptedException {
        ObjectNode entries = all.putObject(kind);
        Config config;
        try {
            config = admin.describeConfigs(List.of(resource), new DescribeConfigsOptions().includeSynonyms(true)).all().get().get(resource);
        } catch (ExecutionException e) {
            entries.put("error", e.getCause().toString());
            return;
        }
        Map<String, ConfigEntry> sorted = new TreeMap<>();
        config.entries().forEach(entry -> sorted.put(entry.name(), entry));
        sorted.forEach((name, entry) -> {
            ObjectNode node = entries.putObject(name).put("value", entry.value()).put("type", entry.type().name());
            node.put("readOnly", entry.isReadOnly()).put("sensitive", entry.isSensitive()).put("source", entry.source().name());
            entry.synonyms().forEach(synonym -> node.withArray("synonyms")
                .add(synonym.source() + ": " + synonym.name() + "=" + synonym.value()));
        });
    }
}
