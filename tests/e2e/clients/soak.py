#!/usr/bin/env python3
"""Clients that do everything at once until they are told to end, and write down what they did and were told.

The history's form is that of the crate millstream-history, which judges it. Everything here may fail at any time, as the broker may be
killed: a call whose outcome nobody knows is written down as unknown. See scenario.py for how it is called.
"""

import itertools
import json
import os
import queue
import random
import signal
import socket
import struct
import threading
import time
import uuid

from scenario import check, main, scenario, skip, until

try:
    from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Producer, TopicPartition
    from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec
except ImportError as error:
    skip(f"confluent-kafka: {error}")

KEYS = 40
TOPICS = {
    "plain": (4, {}),
    "trimmed": (1, {"segment.ms": "2000"}),
    "transacted": (3, {}),
    "moved": (4, {}),
    "compacted": (2, {"cleanup.policy": "compact", "segment.ms": "1000", "min.cleanable.dirty.ratio": "0.05"}),
}
GROUPS = {
    "classic": {"partition.assignment.strategy": "range,roundrobin"},
    "cooperative": {"partition.assignment.strategy": "cooperative-sticky"},
    "next-generation": {"group.protocol": "consumer"},
}
CLASSIC_TIMEOUTS = {"session.timeout.ms": 3000, "heartbeat.interval.ms": 300}
COMMON = {"reconnect.backoff.max.ms": 200, "retry.backoff.max.ms": 200, "socket.timeout.ms": 4000}
AWAY_MS = 40_000  # A member that does not poll for this long leaves its group; longer than any call may take.


class History:
    """Writes one line per event; its order is that of the lines. A line is there before what it tells of begins, as this process may be killed."""

    def __init__(self, path, first_call=0):
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.lock = threading.RLock()  # What is garbage may have callbacks, at any time.
        self.calls = first_call

    def event(self, event):
        with self.lock:
            os.write(self.file, (json.dumps([time.monotonic_ns() // 1_000_000, event], separators=(",", ":")) + "\n").encode())

    def invoke(self, call):
        with self.lock:
            self.calls += 1
            self.event({"invoke": [self.calls, call]})
            return self.calls

    def ok(self, number, answer="done"):
        self.event({"ok": [number, answer]})

    def fail(self, number, why):
        self.event({"fail": [number, str(why)]})

    def unknown(self, number):
        self.event({"unknown": number})


class Stage:
    """What all workers share."""

    def __init__(self, bootstrap, path, first_call=0):
        self.bootstrap = bootstrap
        self.history = History(path, first_call)
        self.stop = threading.Event()
        self.groups_may_end = threading.Event()
        self.held = {}
        self.producers = 0
        self.transactions = 0
        self.lock = threading.Lock()
        self.failures = []

    def config(self, **more):
        return {"bootstrap.servers": self.bootstrap, **COMMON, **{name.replace("_", "."): value for name, value in more.items()}}

    def new_producer(self):
        with self.lock:
            self.producers += 1
            return self.producers

    def new_transaction(self):
        with self.lock:
            self.transactions += 1
            return self.transactions

    def worker(self, work, *arguments):
        """Runs until the end; a worker must not end by itself."""

        def guarded():
            try:
                work(self, *arguments)
            except BaseException as error:  # noqa: BLE001
                self.failures.append(f"{work.__name__}{arguments}: {error!r}")

        thread = threading.Thread(target=guarded, daemon=True)
        thread.start()
        return thread


def place(topic, number):
    return {"topic": str(uuid.uuid5(uuid.NAMESPACE_URL, topic)), "number": number}


class Sender:
    """One producer's life: values grow, and carry its number."""

    def __init__(self, stage):
        self.stage = stage
        self.number = stage.new_producer()
        self.count = 0

    def next_value(self):
        self.count += 1
        return (self.number << 32) + self.count

    def send(self, client, topic, partition, value, transaction=None):
        """Sends a value; a full queue is nothing that happened."""
        history = self.stage.history
        now_ms = time.time_ns() // 1_000_000
        batch = {"producer": self.number, "partition": place(topic, partition), "values": [value], "timestamp": now_ms}
        call = history.invoke({"send": {**batch, "transaction": transaction}})

        def delivered(error, message):
            if error is None:
                history.ok(call, {"sent": message.offset()})
            else:
                history.unknown(call)

        try:
            client.produce(topic, str(value), str(value % KEYS), partition=partition, timestamp=now_ms, on_delivery=delivered)
        except BufferError:
            history.fail(call, "the queue is full")


def produce(stage, topic, per_second):
    """An idempotent producer, replaced by a new one when it can't go on."""
    partitions, _ = TOPICS[topic]
    while not stage.stop.is_set():
        sender = Sender(stage)
        broken = []
        client = Producer(
            {
                **stage.config(enable_idempotence=True, linger_ms=2, message_timeout_ms=120_000),
                "error_cb": lambda error, broken=broken: broken.append(error) if error.fatal() else None,
            }
        )
        while not stage.stop.is_set() and not broken:
            sender.send(client, topic, random.randrange(partitions), sender.next_value())
            client.poll(random.expovariate(per_second))
        client.flush(130)


def end_transaction(stage, client, transaction, commit):
    """Commits or aborts; says whether it is committed, or nothing if the producer can't go on."""
    call = stage.history.invoke({"end_transaction": {"transaction": transaction, "commit": commit}})
    if commit and random.random() < 0.03:
        # Given up with the request on its way.
        client.flush(5)
        try:
            client.commit_transaction(0.001)
        except KafkaException:
            pass
        stage.history.unknown(call)
        return None
    for _ in range(3):
        try:
            client.commit_transaction(30) if commit else client.abort_transaction(30)
            stage.history.ok(call)
            return commit
        except KafkaException as error:
            problem = error.args[0]
            if problem.retriable():
                continue
            if problem.txn_requires_abort() and commit:
                # It was not committed, and never will be.
                stage.history.fail(call, problem)
                return end_transaction(stage, client, transaction, False)
            break
    stage.history.unknown(call)
    return None


def transact(stage, number):
    """A transactional producer that commits, aborts, and sometimes is replaced in the middle."""
    topic = "transacted"
    partitions, _ = TOPICS[topic]
    while not stage.stop.is_set():
        sender = Sender(stage)
        client = Producer(stage.config(transactional_id=f"soak-{number}", transaction_timeout_ms=10_000, linger_ms=2))
        try:
            client.init_transactions(60)
        except KafkaException:
            continue
        can_go_on = True
        while can_go_on and not stage.stop.is_set():
            transaction = stage.new_transaction()
            try:
                client.begin_transaction()
                for _ in range(random.randint(1, 12)):
                    sender.send(client, topic, random.randrange(partitions), sender.next_value(), transaction)
                    client.poll(random.expovariate(400))
            except KafkaException as error:
                is_open = error.args[0].txn_requires_abort()
                can_go_on = is_open and end_transaction(stage, client, transaction, False) is not None
                continue
            chance = random.random()
            if chance < 0.02:
                client.flush(5)
                # Whoever comes next with this id finds the transaction open.
                break
            can_go_on = end_transaction(stage, client, transaction, chance < 0.8) is not None


class Member:
    """A consumer that writes down what it has, reads and commits.

    It comes and goes by its subscription and is never closed: librdkafka 2.16 can wait for ever in the callback of a close(), and
    confluent-kafka does not let go of the interpreter there.
    """

    def __init__(self, stage, group, topics, name, **config):
        self.stage, self.group, self.topics = stage, group, topics
        self.base, self.lives = name, 0
        self.positions, self.unread = {}, {}
        settings = {"group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False, "fetch.wait.max.ms": 100}
        settings |= {"max.poll.interval.ms": AWAY_MS, "isolation.level": "read_committed", **config}
        is_new = config.get("group.protocol") == "consumer"
        if not is_new:
            settings |= CLASSIC_TIMEOUTS
        self.is_incremental = is_new or "cooperative" in config["partition.assignment.strategy"]
        self.settings = {**stage.config(), **settings}
        self.client = Consumer(self.settings)
        # A client that subscribes again can still assign itself what it was told in its last life: one of the cooperative protocol always, one
        # of the new protocol if something was on its way when it left.
        self.is_new_each_time = self.is_incremental and not is_new
        self.left_early = False
        self.is_leaving = False
        self.former = []

    def join(self):
        if self.left_early or self.lives > 0 and self.is_new_each_time:
            self.replace()
        self.lives += 1
        self.is_leaving = False
        self.name = f"{self.base}-{self.lives}"
        self.client.subscribe(self.topics, on_assign=self.on_assign, on_revoke=self.on_revoke, on_lost=self.on_lost)

    def replace(self):
        self.former.append(self.client)
        self.client = Consumer(self.settings)

    def leave(self):
        """Gives back what it has; when the broker does not answer it gives up."""
        start, had_nothing = time.monotonic(), not self.positions
        self.is_leaving = True
        try:
            self.client.unsubscribe()
        except KafkaException:
            # It cannot go on, as it says.
            self.replace()
        while self.positions and time.monotonic() < start + 5:
            self.poll()
        self.left_early = had_nothing or time.monotonic() > start + 1
        self.unread.clear()
        self.positions.clear()
        self.holds()

    def holds(self, partitions=None, lost=False):
        """Says what it has: all that it reads, unless told; and whether the rest was taken from it while it was silent."""
        held = list(self.positions) if partitions is None else partitions
        self.stage.held[(self.group, self.name)] = held
        self.stage.history.event({"holds": {"group": self.group, "member": self.name, "partitions": [place(*where) for where in held], "lost": lost}})

    def on_assign(self, client, partitions):
        if client is not self.client or self.is_leaving:
            # librdkafka can serve an assignment that has waited in its queue until the member leaves; by then it may be another's.
            return
        self.note()
        starts = []
        for partition in partitions:
            start = self.committed(partition)
            self.positions[(partition.topic, partition.partition)] = start
            starts.append(TopicPartition(partition.topic, partition.partition, start))
        client.incremental_assign(starts) if self.is_incremental else client.assign(starts)
        self.holds()

    def committed(self, partition):
        """The group's offset, or the start."""
        while True:
            call = self.stage.history.invoke({"fetch_committed": {"group": self.group, "partition": place(partition.topic, partition.partition)}})
            try:
                offset = self.client.committed([TopicPartition(partition.topic, partition.partition)], 10)[0].offset
                self.stage.history.ok(call, {"committed": max(offset, -1)})
                return max(offset, 0)
            except KafkaException:
                self.stage.history.unknown(call)

    def on_revoke(self, client, partitions):
        if client is not self.client:
            return
        self.note()
        self.commit([(partition.topic, partition.partition) for partition in partitions])
        self.forget(partitions)
        client.incremental_unassign(partitions) if self.is_incremental else client.unassign()

    def on_lost(self, client, partitions):
        if client is not self.client:
            return
        self.note()
        self.forget(partitions, True)
        client.incremental_unassign(partitions) if self.is_incremental else client.unassign()

    def forget(self, partitions, lost=False):
        for partition in partitions:
            self.positions.pop((partition.topic, partition.partition), None)
        self.holds(lost=lost)

    def poll(self):
        """The next messages. Callbacks come between any two of them."""
        for former in self.former[-3:]:
            # One that still waits to be told that it may leave.
            former.poll(0)
        messages, wait = [], 0.1
        while len(messages) < 200 and (message := self.client.poll(wait)) is not None:
            if message.error() is None:
                where = (message.topic(), message.partition())
                self.unread.setdefault(where, []).append((message.offset(), int(message.value())))
                messages.append(message)
            wait = 0
        self.note()
        return messages

    def note(self):
        """Writes down what came since the last time."""
        for where, records in self.unread.items():
            if where not in self.positions:
                continue
            call = self.stage.history.invoke({"read": {"partition": place(*where), "from": self.positions[where], "committed": True}})
            self.stage.history.ok(call, {"records": records})
            self.positions[where] = records[-1][0] + 1
        self.unread.clear()

    def commit(self, wanted):
        offsets = {where: self.positions[where] for where in wanted if where in self.positions}
        if not offsets:
            return
        invoke = self.stage.history.invoke
        calls = [invoke({"commit": {"group": self.group, "partition": place(*where), "offset": offset}}) for where, offset in offsets.items()]
        try:
            answers = self.client.commit(offsets=[TopicPartition(*where, offset) for where, offset in offsets.items()], asynchronous=False)
            codes = {(answer.topic, answer.partition): answer.error for answer in answers}
        except KafkaException as error:
            codes = dict.fromkeys(offsets, error.args[0])
        for call, where in zip(calls, offsets):
            error = codes.get(where)
            if error is None:
                self.stage.history.ok(call)
            else:
                # Also a refusal: the attempt before it may have been taken, and its answer lost.
                self.stage.history.unknown(call)


def consume(stage, group, index):
    """A member that comes and goes, and sometimes is away so long that it is taken for dead."""
    member = Member(stage, group, ["plain", "transacted"], f"{group}-{index}", **GROUPS[group])
    while not stage.groups_may_end.is_set():
        member.join()
        end = time.monotonic() + random.uniform(2, 15)
        while not stage.groups_may_end.is_set() and (time.monotonic() < end or stage.stop.is_set()):
            if member.poll() and random.random() < 0.2:
                member.commit(list(member.positions))
            if random.random() < 0.002 and not stage.stop.is_set():
                member.holds([])
                stage.stop.wait(AWAY_MS / 1000 + 1)
                # Whether it still is a member, the broker knows.
                member.commit(list(member.positions))
                member.positions.clear()
                break
        member.leave()


class Stuck(Exception):
    """A call that did not come back."""


def bounded(call, *arguments):
    """Calls what may wait for ever: librdkafka 2.16 loses its question for a group's coordinator when the connection breaks just then."""
    ended = queue.Queue()

    def run():
        try:
            ended.put((call(*arguments), None))
        except KafkaException as error:
            ended.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        answer, error = ended.get(timeout=20)
    except queue.Empty:
        raise Stuck from None
    if error:
        raise error
    return answer


def move(stage, index):
    """Consumes, produces and commits in transactions: what is in `plain` gets into `moved` exactly once."""
    member = Member(stage, "movers", ["plain"], f"mover-{index}", **{"group.protocol": "consumer", "max.poll.interval.ms": 300_000})
    member.commit = lambda _: None  # Offsets are committed by transactions alone.
    while not stage.stop.is_set():
        sender = Sender(stage)
        client = Producer(stage.config(transactional_id=f"mover-{index}", transaction_timeout_ms=10_000, linger_ms=2))
        try:
            client.init_transactions(60)
        except KafkaException:
            continue
        member.join()
        end = time.monotonic() + random.uniform(5, 25)
        while time.monotonic() < end and not stage.stop.is_set():
            # What was taken away while it polled is another member's to move.
            positions = member.positions
            messages = [message for message in member.poll() if message.offset() < positions.get((message.topic(), message.partition()), 0)]
            # What is not committed is read again from the committed offset, by the next life.
            if messages and not move_once(stage, client, member, sender, messages):
                break
        member.leave()


def move_once(stage, client, member, sender, messages):
    """One transaction; whether it is committed."""
    transaction = stage.new_transaction()
    calls = []
    try:
        client.begin_transaction()
        for message in messages:
            sender.send(client, "moved", message.partition(), int(message.value()), transaction)
            client.poll(0)
        offsets = [TopicPartition(*where, offset) for where, offset in member.positions.items()]
        for offset in offsets:
            where = place(offset.topic, offset.partition)
            calls.append(stage.history.invoke({"commit": {"group": "movers", "partition": where, "offset": offset.offset}}))
        bounded(client.send_offsets_to_transaction, offsets, member.client.consumer_group_metadata(), 15)
        is_committed = end_transaction(stage, client, transaction, random.random() < 0.95)
    except KafkaException as error:
        is_open = error.args[0].txn_requires_abort()
        is_committed = end_transaction(stage, client, transaction, False) if is_open else None
    except Stuck:
        is_committed = None
    for call in calls:
        if is_committed is None:
            stage.history.unknown(call)
        elif is_committed:
            stage.history.ok(call)
        else:
            stage.history.fail(call, "aborted")
    return is_committed


def offset_of(admin, topic, number, spec, isolation=IsolationLevel.READ_UNCOMMITTED):
    where = TopicPartition(topic, number)
    offset = admin.list_offsets({where: spec}, isolation_level=isolation, request_timeout=10)[where].result().offset
    if offset < -1:
        # librdkafka's "no offset": it was not told one, and does not say so.
        raise KafkaException(KafkaError(KafkaError._INVALID_ARG, f"{topic}-{number} has offset {offset}"))
    return offset


def ask_bounds(stage, admin, topic, number, last=False):
    """Start, last stable offset and end, in this order, as the later may only be larger."""
    call = stage.history.invoke({"bounds": {"partition": place(topic, number), "last": last}})
    try:
        start = offset_of(admin, topic, number, OffsetSpec.earliest())
        stable = offset_of(admin, topic, number, OffsetSpec.latest(), IsolationLevel.READ_COMMITTED)
        end = offset_of(admin, topic, number, OffsetSpec.latest())
    except KafkaException:
        stage.history.unknown(call)
        return None
    stage.history.ok(call, {"bounds": {"start": start, "stable": stable, "end": end}})
    return start, stable, end


def ask_epoch(stage, topic, number, newest):
    """OffsetForLeaderEpoch, version 3, which no client offers: of any epoch up to the newest, which is returned, or one of the next."""
    epoch = random.randint(0, newest + 2)
    call = stage.history.invoke({"epoch_end": {"partition": place(topic, number), "epoch": epoch}})
    name = topic.encode()
    body = struct.pack(">iih", -2, 1, len(name)) + name + struct.pack(">iiii", 1, number, -1, epoch)
    frame = struct.pack(">hhih", 23, 3, 1, 4) + b"soak" + body
    try:
        host, port = stage.bootstrap.split(":")
        with socket.create_connection((host, int(port)), 10) as connection:
            connection.sendall(struct.pack(">i", len(frame)) + frame)
            stream = connection.makefile("rb")
            answer = stream.read(struct.unpack(">i", stream.read(4))[0])
        # Correlation id, throttle time, one topic by name, one partition.
        error, _, found, end = struct.unpack(">hiiq", answer[12 + 2 + len(name) + 4 :])
    except (OSError, struct.error):
        stage.history.unknown(call)
        return newest
    if error or found < 0:
        stage.history.fail(call, error or "no such epoch yet")
        return newest
    stage.history.ok(call, {"offset": end})
    return max(newest, found)


def observe(stage):
    """Asks where logs start and end, and for offsets by time; deletes records now and then."""
    epochs, turns = dict.fromkeys(range(4), 0), itertools.count()
    while not stage.stop.is_set():
        # librdkafka's goes on asking with the epoch that it knew, also after it was told that there is a later one.
        admin = AdminClient(stage.config())
        while not stage.stop.wait(0.1) and observe_once(stage, admin, epochs, next(turns)):
            pass


def observe_once(stage, admin, epochs, turn):
    """Whether all was answered."""
    for topic, (partitions, _) in TOPICS.items():
        bounds = ask_bounds(stage, admin, topic, random.randrange(partitions))
        if bounds is None:
            return False
        if topic == "trimmed" and turn % 3 == 0:
            before = random.randint(bounds[0], bounds[2])
            call = stage.history.invoke({"delete_records": {"partition": place(topic, 0), "before": before}})
            try:
                admin.delete_records([TopicPartition(topic, 0, before)])[TopicPartition(topic, 0)].result()
                stage.history.ok(call)
            except KafkaException:
                stage.history.unknown(call)
                return False
    number = random.randrange(4)
    epochs[number] = ask_epoch(stage, "plain", number, epochs[number])
    timestamp = time.time_ns() // 1_000_000 - random.randint(0, 20_000)
    call = stage.history.invoke({"offset_at": {"partition": place("plain", number), "timestamp": timestamp}})
    try:
        stage.history.ok(call, {"offset": offset_of(admin, "plain", number, OffsetSpec.for_timestamp(timestamp))})
    except KafkaException:
        stage.history.unknown(call)
        return False
    return True


def read_all(stage, topic, number, start, end):
    """The last read of a partition."""
    client = Consumer(stage.config(group_id="last-read", isolation_level="read_committed", enable_auto_commit=False, enable_partition_eof=True))
    client.assign([TopicPartition(topic, number, start)])
    call = stage.history.invoke({"read": {"partition": place(topic, number), "from": start, "committed": True, "last": True}})
    records = []
    deadline = time.monotonic() + 60
    while True:
        if time.monotonic() > deadline:
            check(f"{topic}-{number} is read to its end", False, len(records))
        message = client.poll(1)
        if message is None:
            continue
        if message.error() is None:
            records.append((message.offset(), int(message.value())))
        elif message.error().code() == KafkaError._PARTITION_EOF and message.offset() >= end:
            break
    stage.history.ok(call, {"records": records})
    client.close()
    return records


def settle(stage, group, topics):
    """Waits until all partitions have an owner, and says that they must have one now."""
    wanted = {(topic, number) for topic in topics for number in range(TOPICS[topic][0])}

    def is_owned():
        held = list(stage.held.items())
        return wanted <= {where for (of, _), places in held if of == group for where in places}

    until(f"every partition has an owner in {group}", is_owned, 60)
    stage.history.event({"at_rest": {"group": group, "partitions": [place(*where) for where in sorted(wanted)]}})


@scenario
def run(bootstrap, path):
    """Everything at once until SIGTERM; then everything ends well. If the library hangs, this is killed: `finish` needs nothing of it."""
    stage = Stage(bootstrap, path)
    signal.signal(signal.SIGTERM, lambda *_: stage.stop.set())
    admin = AdminClient(stage.config())
    for topic, (partitions, configs) in TOPICS.items():
        admin.create_topics([NewTopic(topic, partitions, 1, config=configs)])[topic].result(30)
    stage.history.event({"compacted": {"topic": place("compacted", 0)["topic"], "keys": KEYS}})
    writers = [stage.worker(produce, "plain", 150), stage.worker(produce, "plain", 150), stage.worker(produce, "trimmed", 60)]
    writers += [stage.worker(produce, "compacted", 150), stage.worker(transact, 0), stage.worker(transact, 1)]
    writers += [stage.worker(move, 0), stage.worker(move, 1), stage.worker(observe)]
    readers = [stage.worker(consume, group, index) for group in GROUPS for index in range(3)]
    stage.stop.wait()
    check("no worker failed", not stage.failures, stage.failures)
    for thread in writers:
        thread.join(150)
        check("writers end", not thread.is_alive())
    for group in GROUPS:
        settle(stage, group, ["plain", "transacted"])
    stage.groups_may_end.set()
    for thread in readers:
        thread.join(60)
        check("readers end", not thread.is_alive())
    check("no worker failed", not stage.failures, stage.failures)
    os._exit(0)  # Whatever is stuck is not waited for.


@scenario
def finish(bootstrap, path):
    """Reads everything once more, when nobody writes any longer."""
    stage = Stage(bootstrap, path, first_call=1 << 40)
    admin = AdminClient(stage.config())
    time.sleep(12)  # What nobody ended is aborted by its timeout.
    records = {}
    for topic, (partitions, _) in TOPICS.items():
        for number in range(partitions):
            bounds = ask_bounds(stage, admin, topic, number, last=True)
            check(f"the bounds of {topic}-{number} are told", bounds is not None)
            records[topic, number] = read_all(stage, topic, number, bounds[0], bounds[2])
            check(f"{topic}-{number} has records", len(records[topic, number]) > 0)
    movers = Consumer(stage.config(group_id="movers"))
    for place_of in movers.committed([TopicPartition("plain", number) for number in range(TOPICS["plain"][0])], 30):
        number = place_of.partition
        wanted = [value for offset, value in records["plain", number] if offset < place_of.offset]
        moved = [value for _, value in records["moved", number]]
        check(f"plain-{number} was moved exactly once up to {place_of.offset}", sorted(moved) == sorted(wanted), (len(moved), len(wanted)))


if __name__ == "__main__":
    main()
