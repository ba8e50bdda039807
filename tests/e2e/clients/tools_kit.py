"""What the checks of Apache Kafka's command-line tools have in common: running a tool, and topics to run it on."""

import functools
import pathlib
import re
import sys
import threading

import matrix
from matrix import holds, until
from tools_host import Hosts

# A tool's name, as its script has it without kafka- and .sh, and its class.
PACKAGE = "org.apache.kafka.tools"
CLASSES = {
    "acls": f"{PACKAGE}.AclCommand",
    "broker-api-versions": f"{PACKAGE}.BrokerApiVersionsCommand",
    "client-metrics": f"{PACKAGE}.ClientMetricsCommand",
    "cluster": f"{PACKAGE}.ClusterTool",
    "configs": "kafka.admin.ConfigCommand",
    "console-consumer": f"{PACKAGE}.consumer.ConsoleConsumer",
    "console-producer": f"{PACKAGE}.ConsoleProducer",
    "console-share-consumer": f"{PACKAGE}.consumer.ConsoleShareConsumer",
    "consumer-groups": f"{PACKAGE}.consumer.group.ConsumerGroupCommand",
    "consumer-perf-test": f"{PACKAGE}.ConsumerPerformance",
    "delegation-tokens": f"{PACKAGE}.DelegationTokenCommand",
    "delete-records": f"{PACKAGE}.DeleteRecordsCommand",
    "e2e-latency": f"{PACKAGE}.EndToEndLatency",
    "features": f"{PACKAGE}.FeatureCommand",
    "get-offsets": f"{PACKAGE}.GetOffsetShell",
    "groups": f"{PACKAGE}.GroupsCommand",
    "leader-election": f"{PACKAGE}.LeaderElectionCommand",
    "log-dirs": f"{PACKAGE}.LogDirsCommand",
    "metadata-quorum": f"{PACKAGE}.MetadataQuorumCommand",
    "producer-perf-test": f"{PACKAGE}.ProducerPerformance",
    "reassign-partitions": f"{PACKAGE}.reassign.ReassignPartitionsCommand",
    "share-consumer-perf-test": f"{PACKAGE}.ShareConsumerPerformance",
    "share-groups": f"{PACKAGE}.consumer.group.ShareGroupCommand",
    "streams-groups": f"{PACKAGE}.streams.StreamsGroupCommand",
    "topics": f"{PACKAGE}.TopicCommand",
    "transactions": f"{PACKAGE}.TransactionsCommand",
    "verifiable-consumer": f"{PACKAGE}.VerifiableConsumer",
    "verifiable-producer": f"{PACKAGE}.VerifiableProducer",
    "verifiable-share-consumer": f"{PACKAGE}.VerifiableShareConsumer",
}
# These print their summary when their process ends.
ALONE = {"verifiable-consumer", "verifiable-producer", "verifiable-share-consumer"}
JVMS = 4

matrix.FEATURES[:] = CLASSES
STARTING = threading.Lock()  # Checks run at the same time, but the JVMs are only theirs together.


def add_arguments(parser):
    parser.add_argument("--jars", required=True, type=pathlib.Path, help="the directory of Apache Kafka's jars")


def version():
    """The version of the jars that the command line names, None without jars; the command line is checked later."""
    after = sys.argv[sys.argv.index("--jars") + 1] if "--jars" in sys.argv[:-1] else "."
    found = [re.fullmatch(r"kafka-tools-([0-9.]+)\.jar", path.name) for path in pathlib.Path(after).glob("kafka-tools-*.jar")]
    return next((match.group(1) for match in found if match), None)


@functools.cache
def hosts(jars):
    """The JVMs for a directory of jars. They end with this process, which closes their standard input."""
    return Hosts(jars, JVMS)


def tool(run, name, *arguments, data="", fails=False):
    """Runs a tool and returns what it prints, its errors too where it has to fail."""
    bootstrap = ("--bootstrap-server", run.bootstrap)
    placed = (*bootstrap, *arguments) if name != "cluster" else (*arguments, *bootstrap)
    with STARTING:
        pool = hosts(run.options.jars)
    run_it = pool.run_alone if name in ALONE else functools.partial(pool.run, data=data.encode())
    status, output, errors = run_it(CLASSES[name], placed)
    reason = "\n".join(line for line in errors.splitlines() if not line.startswith("\tat "))
    holds((status != 0) == fails, f"{name} {' '.join(arguments)} ended with {status}", output[-400:], reason[:400])
    return output + errors if fails else output


def create(run, suffix, partitions=1, *configs):
    """The name of a new topic, once brokers know it."""
    topic = run.name(suffix)
    settings = [part for config in configs for part in ("--config", config)]
    tool(run, "topics", "--create", "--topic", topic, "--partitions", str(partitions), *settings)
    until(f"{topic} is listed", lambda: topic in tool(run, "topics", "--list").split())
    return topic


def produce(run, topic, lines, *arguments):
    tool(run, "console-producer", "--topic", topic, *arguments, data=lines)


def console(run, topic, count, *arguments):
    """The first lines that the console consumer prints of a topic."""
    limits = ("--max-messages", str(count), "--timeout-ms", "20000")
    return tool(run, "console-consumer", "--topic", topic, "--from-beginning", *limits, *arguments).splitlines()


def offsets(run, topic, *arguments):
    """What get-offsets tells, by partition."""
    lines = tool(run, "get-offsets", "--topic", topic, *arguments).split()
    return {int(partition): int(offset or -1) for _, partition, offset in (line.rsplit(":", 2) for line in lines)}


def row(table, first):
    """The columns of the line that has this word."""
    found = [line.split() for line in table.splitlines() if first in line.split()]
    holds(found, f"no line with {first}", table)
    return found[0]
