import java.time.Duration;
import java.util.Arrays;
import java.util.Set;
import java.util.TreeSet;
import java.util.UUID;

/**
 * Checks of a broker with Apache Kafka's own Java clients: producers, consumers, groups of all kinds, transactions and the admin client.
 *
 * usage: Main --bootstrap HOST:PORT [--only FEATURE[,FEATURE…]] [--prefix NAME] [--at-once COUNT]
 *
 * Prints one JSON line a check on standard output; the exit status is 0 if none failed.
 */
public final class Main {
    private static final Duration EACH = Duration.ofSeconds(40);
    private static final Duration ALL = Duration.ofSeconds(120);

    private Main() { }

    public static void main(String[] arguments) throws Exception {
        String bootstrap = null;
        String prefix = "java-" + UUID.randomUUID().toString().substring(0, 8) + "-";
        Set<String> only = new TreeSet<>();
        int atOnce = 12;
        for (int i = 0; i + 1 < arguments.length; i += 2) {
            String value = arguments[i + 1];
            switch (arguments[i]) {
                case "--bootstrap" -> bootstrap = value;
                case "--only" -> only.addAll(Arrays.asList(value.split(",")));
                case "--prefix" -> prefix = value;
                case "--at-once" -> atOnce = Integer.parseInt(value);
                default -> usage("unknown option " + arguments[i]);
            }
        }
        if (bootstrap == null || arguments.length % 2 != 0) {
            usage("--bootstrap HOST:PORT is needed, and a value for each option");
        }
        Broker broker = new Broker(bootstrap, prefix);
        Checks checks = new Checks(only, EACH);
        // The ones that wait longest for the broker go first.
        StreamsApp.add(checks, broker);
        ShareGroups.add(checks, broker);
        NewGroups.add(checks, broker);
        ClassicGroups.add(checks, broker);
        Transactions.add(checks, broker);
        TransactionOffsets.add(checks, broker);
        AdminGroups.add(checks, broker);
        AdminTopics.add(checks, broker);
        AdminCluster.add(checks, broker);
        Produce.add(checks, broker);
        Consume.add(checks, broker);
        System.exit(checks.run(atOnce, ALL) ? 0 : 1);
    }

    private static void usage(String problem) {
        System.err.println(problem + "\nusage: Main --bootstrap HOST:PORT [--only FEATURE[,FEATURE…]] [--prefix NAME] [--at-once COUNT]");
        System.exit(2);
    }
}
