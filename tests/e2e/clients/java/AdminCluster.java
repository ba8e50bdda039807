import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.time.Duration;
import java.util.Arrays;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;

import org.apache.kafka.clients.admin.AbortTransactionSpec;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.DescribeClusterOptions;
import org.apache.kafka.clients.admin.FeatureUpdate;
import org.apache.kafka.clients.admin.ListConfigResourcesOptions;
import org.apache.kafka.clients.admin.ListTransactionsOptions;
import org.apache.kafka.clients.admin.RaftVoterEndpoint;
import org.apache.kafka.clients.admin.ScramCredentialInfo;
import org.apache.kafka.clients.admin.ScramMechanism;
import org.apache.kafka.clients.admin.TransactionListing;
import org.apache.kafka.clients.admin.TransactionState;
import org.apache.kafka.clients.admin.UpdateFeaturesOptions;
import org.apache.kafka.clients.admin.UserScramCredentialDeletion;
import org.apache.kafka.clients.admin.UserScramCredentialUpsertion;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.BrokerIdNotRegisteredException;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidRequestException;
import org.apache.kafka.common.errors.InvalidUpdateVersionException;
import org.apache.kafka.common.errors.ResourceNotFoundException;
import org.apache.kafka.common.errors.SecurityDisabledException;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.errors.TransactionalIdNotFoundException;
import org.apache.kafka.common.errors.UnacceptableCredentialException;
import org.apache.kafka.common.errors.UnsupportedByAuthenticationException;
import org.apache.kafka.common.errors.VoterNotFoundException;
import org.apache.kafka.common.metrics.KafkaMetric;
import org.apache.kafka.common.quota.ClientQuotaAlteration;
import org.apache.kafka.common.quota.ClientQuotaEntity;
import org.apache.kafka.common.quota.ClientQuotaFilter;
import org.apache.kafka.common.quota.ClientQuotaFilterComponent;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;

/** The admin client's methods on the cluster: nodes, features, quorum, broker settings, users, quotas, transactions, and itself. */
final class AdminCluster {
    private final Broker broker;
    private final Admin admin;

    private AdminCluster(Broker broker) {
        this.broker = broker;
        this.admin = broker.admin;
    }

    static void add(Checks checks, Broker broker) {
        AdminCluster cluster = new AdminCluster(broker);
        checks.add("admin", "describeCluster tells nodes, controller, id and what everybody may do", cluster::describe);
        checks.add("admin", "describeFeatures and updateFeatures agree on the levels", cluster::features);
        checks.add("admin", "describeMetadataQuorum tells the one voter, which leads", cluster::quorum);
        checks.add("admin", "addRaftVoter and removeRaftVoter refuse what cannot be", cluster::voters);
        checks.add("admin", "unregisterBroker refuses a broker that is not there", cluster::unregister);
        checks.add("admin", "a broker's settings are described, and some altered while it runs", cluster::brokerConfigs);
        checks.add("admin", "a broker's log levels are described and altered", cluster::logLevels);
        checks.add("admin", "listConfigResources lists what has settings of its own", cluster::configResources);
        checks.add("admin", "ACLs cannot be used without an authorizer", cluster::acls);
        checks.add("admin", "delegation tokens cannot be used without authentication", cluster::delegationTokens);
        checks.add("admin", "SCRAM credentials are made, described and deleted", cluster::scram);
        checks.add("admin", "client quotas are set, described and removed", cluster::quotas);
        checks.add("admin", "transactions are listed by state and id", cluster::listTransactions);
        checks.add("admin", "describeProducers and abortTransaction end a transaction that hangs", cluster::abortTransaction);
        checks.add("admin", "fenceProducers and forceTerminateTransaction shut a producer out", cluster::fence);
        checks.add("admin", "the admin client has metrics, and an instance id if the broker takes them", cluster::metrics);
        checks.addLast("admin", "every method of Admin was called by these checks", cluster::complete);
    }

    private int node() throws Exception {
        return Expect.got(admin.describeCluster().nodes()).iterator().next().id();
    }

    private void describe() throws Exception {
        var described = admin.describeCluster(new DescribeClusterOptions().includeAuthorizedOperations(true));
        Expect.equal("nodes", 1, Expect.got(described.nodes()).size());
        var controller = Expect.got(described.controller());
        Expect.that("controller", Expect.got(described.nodes()).contains(controller), controller);
        Expect.that("id", Expect.got(described.clusterId()).length() >= 16, Expect.got(described.clusterId()));
        Expect.equal("what everybody may do", Set.of(AclOperation.CREATE, AclOperation.ALTER, AclOperation.DESCRIBE,
            AclOperation.CLUSTER_ACTION, AclOperation.DESCRIBE_CONFIGS, AclOperation.ALTER_CONFIGS, AclOperation.IDEMPOTENT_WRITE),
            Expect.got(described.authorizedOperations()));
    }

    private void features() throws Exception {
        var features = Expect.got(admin.describeFeatures().featureMetadata());
        Map<String, Short> finalized = features.finalizedFeatures().entrySet().stream()
            .collect(Collectors.toMap(Map.Entry::getKey, entry -> entry.getValue().maxVersionLevel()));
        for (String name : List.of("metadata.version", "group.version", "transaction.version", "share.version")) {
            Expect.that(name + " is on", finalized.getOrDefault(name, (short) 0) > 0, finalized);
            Expect.that(name + " is supported", features.supportedFeatures().containsKey(name), features.supportedFeatures());
        }
        short tooHigh = 1000;
        FeatureUpdate same = new FeatureUpdate(finalized.get("group.version"), FeatureUpdate.UpgradeType.UPGRADE);
        Expect.got(admin.updateFeatures(Map.of("group.version", same), new UpdateFeaturesOptions().validateOnly(true)).all());
        FeatureUpdate wrong = new FeatureUpdate(tooHigh, FeatureUpdate.UpgradeType.UPGRADE);
        Expect.failure("a level that nobody supports", InvalidUpdateVersionException.class,
            () -> admin.updateFeatures(Map.of("group.version", wrong), new UpdateFeaturesOptions()).all());
    }

    private void quorum() throws Exception {
        var quorum = Expect.got(admin.describeMetadataQuorum().quorumInfo());
        Expect.equal("voters", 1, quorum.voters().size());
        Expect.equal("the leader", quorum.leaderId(), quorum.voters().get(0).replicaId());
        Expect.that("the log grows", quorum.highWatermark() > 0 && quorum.leaderEpoch() > 0, quorum);
    }

    private void voters() throws Exception {
        var endpoint = new RaftVoterEndpoint("CONTROLLER", "127.0.0.1", 1);
        var removed = admin.removeRaftVoter(77, Uuid.randomUuid()).all();
        Expect.failure("adding one nobody answers for", TimeoutException.class,
            () -> admin.addRaftVoter(77, Uuid.randomUuid(), Set.of(endpoint)).all());
        Expect.failure("removing one that is none", VoterNotFoundException.class, () -> removed);
    }

    private void unregister() {
        Expect.failure("broker 4711", BrokerIdNotRegisteredException.class,
            () -> admin.unregisterBroker(4711).all());
    }

    private static Map<ConfigResource, Collection<AlterConfigOp>> change(ConfigResource resource, String name, String value) {
        AlterConfigOp.OpType type = value == null ? AlterConfigOp.OpType.DELETE : AlterConfigOp.OpType.SET;
        return Map.of(resource, List.of(new AlterConfigOp(new ConfigEntry(name, value), type)));
    }

    private ConfigEntry entry(ConfigResource resource, String name) throws Exception {
        return Expect.got(admin.describeConfigs(List.of(resource)).all()).get(resource).get(name);
    }

    private void brokerConfigs() throws Exception {
        ConfigResource here = new ConfigResource(ConfigResource.Type.BROKER, String.valueOf(node()));
        ConfigResource everywhere = new ConfigResource(ConfigResource.Type.BROKER, "");
        ConfigEntry usual = entry(here, "log.segment.bytes");
        Expect.equal("a default", "1073741824 DEFAULT_CONFIG", usual.value() + " " + usual.source());
        Expect.equal("read only", true, entry(here, "node.id").isReadOnly());
        // A little above the default, so that no other check notices.
        String key = "message.max.bytes";
        Expect.got(admin.incrementalAlterConfigs(change(everywhere, key, "1048600")).all());
        Expect.until("set for all", () -> "1048600".equals(entry(here, key).value()), () -> entry(here, key));
        Expect.equal("where from", ConfigEntry.ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG, entry(here, key).source());
        Expect.got(admin.incrementalAlterConfigs(change(here, key, "1048601")).all());
        Expect.until("set for this one", () -> "1048601".equals(entry(here, key).value()), () -> entry(here, key));
        Expect.got(admin.incrementalAlterConfigs(change(here, key, null)).all());
        Expect.got(admin.incrementalAlterConfigs(change(everywhere, key, null)).all());
        Expect.until("deleted", () -> "1048588".equals(entry(here, key).value()), () -> entry(here, key));
        Expect.failure("a read-only one", InvalidRequestException.class,
            () -> admin.incrementalAlterConfigs(change(here, "node.id", "5")).all());
        Expect.failure("a bad value", InvalidRequestException.class,
            () -> admin.incrementalAlterConfigs(change(everywhere, "message.max.bytes", "much")).all());
    }

    private void logLevels() throws Exception {
        ConfigResource logger = new ConfigResource(ConfigResource.Type.BROKER_LOGGER, String.valueOf(node()));
        var levels = Expect.got(admin.describeConfigs(List.of(logger)).all()).get(logger).entries();
        Expect.that("loggers are listed", !levels.isEmpty(), levels);
        ConfigEntry root = levels.stream().filter(level -> level.name().equals("root")).findFirst().orElseThrow();
        Expect.equal("where from", ConfigEntry.ConfigSource.DYNAMIC_BROKER_LOGGER_CONFIG, root.source());
        Expect.got(admin.incrementalAlterConfigs(change(logger, "root", root.value())).all());
        Expect.failure("a level that is none", InvalidConfigurationException.class,
            () -> admin.incrementalAlterConfigs(change(logger, "root", "LOUD")).all());
    }

    private void configResources() throws Exception {
        String topic = broker.topic("resource", 1, "retention.ms", "1000000");
        String group = broker.name("resource");
        String metrics = broker.name("resource");
        broker.configure(ConfigResource.Type.GROUP, group, "consumer.session.timeout.ms", "50000");
        ConfigResource group1 = new ConfigResource(ConfigResource.Type.GROUP, group);
        Expect.until("the group's setting", () -> "50000".equals(entry(group1, "consumer.session.timeout.ms").value()), () -> "none");
        broker.configure(ConfigResource.Type.CLIENT_METRICS, metrics, "interval.ms", "60000");
        Expect.until("all are listed", () -> {
            var all = Expect.got(admin.listConfigResources().all());
            return all.containsAll(List.of(group1, new ConfigResource(ConfigResource.Type.TOPIC, topic),
                new ConfigResource(ConfigResource.Type.CLIENT_METRICS, metrics),
                new ConfigResource(ConfigResource.Type.BROKER, String.valueOf(node()))));
        }, () -> Expect.got(admin.listConfigResources().all()));
        var some = Expect.got(admin.listConfigResources(Set.of(ConfigResource.Type.GROUP), new ListConfigResourcesOptions()).all());
        Expect.that("groups alone", some.stream().allMatch(one -> one.type() == ConfigResource.Type.GROUP), some);
        Expect.that("by listClientMetricsResources", clientMetricsResources().contains(metrics), clientMetricsResources());
        Expect.failure("a bad value of a group", InvalidConfigurationException.class, () -> {
            broker.configure(ConfigResource.Type.GROUP, group, "consumer.session.timeout.ms", "soon");
            return null;
        });
    }

    @SuppressWarnings({"deprecation", "removal"})
    private Set<String> clientMetricsResources() throws Exception {
        return Expect.got(admin.listClientMetricsResources().all()).stream().map(listing -> listing.name()).collect(Collectors.toSet());
    }

    private void acls() {
        AclBinding acl = new AclBinding(new ResourcePattern(ResourceType.TOPIC, broker.name("acl"), PatternType.LITERAL),
            new AccessControlEntry("User:somebody", "*", AclOperation.READ, AclPermissionType.ALLOW));
        Expect.failure("createAcls", SecurityDisabledException.class, () -> admin.createAcls(List.of(acl)).all());
        Expect.failure("describeAcls", SecurityDisabledException.class, () -> admin.describeAcls(AclBindingFilter.ANY).values());
        Expect.failure("deleteAcls", SecurityDisabledException.class, () -> admin.deleteAcls(List.of(acl.toFilter())).all());
    }

    private void delegationTokens() {
        byte[] hmac = {1, 2, 3};
        var refused = UnsupportedByAuthenticationException.class;
        Expect.failure("createDelegationToken", refused, () -> admin.createDelegationToken().delegationToken());
        Expect.failure("renewDelegationToken", refused, () -> admin.renewDelegationToken(hmac).expiryTimestamp());
        Expect.failure("expireDelegationToken", refused, () -> admin.expireDelegationToken(hmac).expiryTimestamp());
        Expect.failure("describeDelegationToken", refused, () -> admin.describeDelegationToken().delegationTokens());
    }

    private void scram() throws Exception {
        String user = broker.name("user");
        var before = Expect.got(admin.describeUserScramCredentials().all());
        Expect.that("the user has none yet", !before.containsKey(user), before);
        for (ScramMechanism mechanism : List.of(ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512)) {
            var upsertion = new UserScramCredentialUpsertion(user, new ScramCredentialInfo(mechanism, 8192), "secret");
            Expect.got(admin.alterUserScramCredentials(List.of(upsertion)).all());
        }
        Expect.until("both are there", () -> {
            var users = Expect.got(admin.describeUserScramCredentials().all());
            return users.containsKey(user) && users.get(user).credentialInfos().size() == 2;
        }, () -> Expect.got(admin.describeUserScramCredentials().all()));
        var described = Expect.got(admin.describeUserScramCredentials(List.of(user)).description(user));
        Expect.that("iterations", described.credentialInfos().stream().allMatch(info -> info.iterations() == 8192), described);
        var few = new UserScramCredentialUpsertion(user, new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 1), "secret");
        Expect.failure("too few iterations", UnacceptableCredentialException.class,
            () -> admin.alterUserScramCredentials(List.of(few)).all());
        for (ScramMechanism mechanism : List.of(ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512)) {
            Expect.got(admin.alterUserScramCredentials(List.of(new UserScramCredentialDeletion(user, mechanism))).all());
        }
        Expect.until("they are gone", () -> !Expect.got(admin.describeUserScramCredentials().all()).containsKey(user), () -> user);
        Expect.failure("describing it then", ResourceNotFoundException.class,
            () -> admin.describeUserScramCredentials(List.of(user)).description(user));
        Expect.failure("deleting it again", ResourceNotFoundException.class, () -> admin.alterUserScramCredentials(
            List.of(new UserScramCredentialDeletion(user, ScramMechanism.SCRAM_SHA_256))).all());
    }

    private void quotas() throws Exception {
        ClientQuotaEntity entity = new ClientQuotaEntity(Map.of(ClientQuotaEntity.CLIENT_ID, broker.name("client")));
        var filter = ClientQuotaFilter.containsOnly(List.of(ClientQuotaFilterComponent.ofEntity(ClientQuotaEntity.CLIENT_ID,
            entity.entries().get(ClientQuotaEntity.CLIENT_ID))));
        alterQuota(entity, "producer_byte_rate", 1e6);
        alterQuota(entity, "request_percentage", 50.0);
        Map<String, Double> both = Map.of("producer_byte_rate", 1e6, "request_percentage", 50.0);
        Expect.until("they are set", () -> both.equals(quotas(filter).get(entity)), () -> quotas(filter));
        alterQuota(entity, "request_percentage", null);
        Expect.until("one is removed", () -> Map.of("producer_byte_rate", 1e6).equals(quotas(filter).get(entity)), () -> quotas(filter));
        Expect.failure("one that nobody knows", InvalidRequestException.class, () -> {
            alterQuota(entity, "records_per_fortnight", 1.0);
            return null;
        });
        alterQuota(entity, "producer_byte_rate", null);
        Expect.until("none is left", () -> quotas(filter).isEmpty(), () -> quotas(filter));
    }

    private void alterQuota(ClientQuotaEntity entity, String name, Double value) throws Exception {
        var operation = new ClientQuotaAlteration.Op(name, value);
        Expect.got(admin.alterClientQuotas(List.of(new ClientQuotaAlteration(entity, List.of(operation)))).all());
    }

    private Map<ClientQuotaEntity, Map<String, Double>> quotas(ClientQuotaFilter filter) throws Exception {
        return Expect.got(admin.describeClientQuotas(filter).entities());
    }

    private boolean lists(ListTransactionsOptions options, String id) throws Exception {
        return Expect.got(admin.listTransactions(options).all()).stream().map(TransactionListing::transactionalId).anyMatch(id::equals);
    }

    private void listTransactions() throws Exception {
        String id = broker.name("listed");
        TopicPartition partition = new TopicPartition(broker.topic("tx-listed", 1), 0);
        try (var producer = broker.transactional(id)) {
            producer.initTransactions();
            producer.beginTransaction();
            Broker.sendAll(producer, partition, "v");
            var listed = Expect.got(admin.listTransactions().all()).stream().filter(one -> one.transactionalId().equals(id)).toList();
            Expect.equal("how often it is listed", 1, listed.size());
            Expect.equal("its state", TransactionState.ONGOING, listed.get(0).state());
            long producerId = listed.get(0).producerId();
            Expect.that("by state", lists(new ListTransactionsOptions().filterStates(List.of(TransactionState.ONGOING)), id), false);
            Expect.that("by producer", lists(new ListTransactionsOptions().filterProducerIds(List.of(producerId)), id), false);
            Expect.that("not by another state",
                !lists(new ListTransactionsOptions().filterStates(List.of(TransactionState.COMPLETE_ABORT)), id), true);
            Expect.that("not among the old ones", !lists(new ListTransactionsOptions().filterOnDuration(3_600_000), id), true);
            Expect.that("by pattern", lists(new ListTransactionsOptions().filterOnTransactionalIdPattern(".*" + id), id), false);
            Expect.that("not by another", !lists(new ListTransactionsOptions().filterOnTransactionalIdPattern("other"), id), true);
            producer.abortTransaction();
        }
        Expect.failure("describing one that is not there", TransactionalIdNotFoundException.class,
            () -> admin.describeTransactions(List.of(broker.name("unknown"))).all());
    }

    private void abortTransaction() throws Exception {
        TopicPartition partition = new TopicPartition(broker.topic("hangs", 1), 0);
        try (var producer = broker.transactional(broker.name("hangs"))) {
            producer.initTransactions();
            producer.beginTransaction();
            Broker.sendAll(producer, partition, "v");
            var state = Expect.got(admin.describeProducers(List.of(partition)).partitionResult(partition)).activeProducers().get(0);
            Expect.equal("where its transaction starts", 0L, state.currentTransactionStartOffset().orElseThrow());
            int coordinatorEpoch = state.coordinatorEpoch().orElse(-1);
            short epoch = (short) state.producerEpoch();
            Expect.got(admin.abortTransaction(new AbortTransactionSpec(partition, state.producerId(), epoch, coordinatorEpoch)).all());
            Expect.until("it is over", () -> Expect.got(admin.describeProducers(List.of(partition)).partitionResult(partition))
                .activeProducers().get(0).currentTransactionStartOffset().isEmpty(), () -> "still open");
            producer.close(Duration.ZERO);
        }
        Expect.equal("read committed", List.of(), broker.committed(partition));
    }

    private void fence() throws Exception {
        String topic = broker.topic("fence", 1);
        String id = broker.name("fence");
        try (var producer = broker.transactional(id)) {
            producer.initTransactions();
            var fenced = admin.fenceProducers(List.of(id));
            Expect.got(fenced.all());
            Expect.that("a later epoch", Expect.got(fenced.epochId(id)) > 0, Expect.got(fenced.epochId(id)));
            Expect.failure("its next transaction", Transactions.FENCED, () -> {
                producer.beginTransaction();
                producer.send(new ProducerRecord<>(topic, "v"));
                producer.commitTransaction();
                return null;
            });
        }
        try (var producer = broker.transactional(id)) {
            producer.initTransactions();
            producer.beginTransaction();
            Broker.sendAll(producer, new TopicPartition(topic, 0), "v");
            Expect.got(admin.forceTerminateTransaction(id).result());
            Expect.failure("its commit", Transactions.FENCED, () -> {
                producer.commitTransaction();
                return null;
            });
            producer.close(Duration.ZERO);
        }
        Expect.equal("read committed", List.of(), broker.committed(new TopicPartition(topic, 0)));
    }

    private void metrics() throws Exception {
        var metrics = admin.metrics();
        boolean counted = metrics.keySet().stream().anyMatch(name -> name.name().equals("request-total"));
        Expect.that("requests are counted", counted, metrics.keySet());
        var metric = (KafkaMetric) metrics.values().iterator().next();
        admin.registerMetricForSubscription(metric);
        admin.unregisterMetricFromSubscription(metric);
        Expect.failure("the instance id of a client that pushes no metrics", IllegalStateException.class,
            () -> admin.clientInstanceId(Duration.ofSeconds(5)));
        try (Admin pushes = Admin.create(broker.settings(Map.of("enable.metrics.push", true)))) {
            // Apache Kafka takes metrics only with a plugin for them, and then gives no id.
            var id = pushes.clientInstanceId(Duration.ofSeconds(5));
            Expect.that("the instance id", id == null || !id.equals(Uuid.ZERO_UUID), id);
        }
    }

    private void complete() {
        admin.close();
        Set<String> missing = Arrays.stream(Admin.class.getMethods()).filter(method -> !Modifier.isStatic(method.getModifiers()))
            .map(Method::getName).collect(Collectors.toCollection(TreeSet::new));
        missing.removeAll(broker.called);
        Expect.equal("methods that were not called", Set.of(), missing);
    }
}
