#!/usr/bin/env node
// What @confluentinc/kafka-javascript (librdkafka) can do with a cluster, by its KafkaJS-like interface. Run with NODE_PATH set to the
// node_modules that tests/setup/js.sh fills; see matrix.js.
'use strict'

const { version } = require('@confluentinc/kafka-javascript/package.json')
const { FEATURES, check, equal, lacks, main, rejection, until } = require('./matrix')
const { groupChecks, nextGenerationChecks, ofValues, recordChecks, transactionChecks } = require('./records')

let library
try {
  library = require('@confluentinc/kafka-javascript')
} catch (error) {
  // Its native module is not there; tests/setup/js.sh says why.
  for (const feature of FEATURES) lacks(feature, `its native module cannot be loaded: ${error.message.split('\n')[0]}`)
}
const { CompressionTypes, Kafka, PartitionAssigners, logLevel } = library?.KafkaJS ?? {}

const connect = run => new Kafka({ kafkaJS: { brokers: [run.bootstrap], logLevel: logLevel.NOTHING } })

async function withAdmin(run, use) {
  const admin = connect(run).admin()
  await admin.connect()
  try {
    return await use(admin)
  } finally {
    await admin.disconnect()
  }
}

const message = ({ key, value, headers, timestamp, partition }) => ({
  key, value, partition, timestamp: timestamp && String(timestamp), headers: headers && Object.fromEntries(headers)
})
const entries = headers => Object.entries(headers ?? {}).flatMap(([name, found]) => [found].flat().map(value => [name, value]))

const client = {
  repeatedHeaders: false, // It reads them as one that has a list, in an order that is not the producer's.
  appendTime: true,

  create: (run, suffix, { partitions = 1, configs = {} }) => withAdmin(run, async admin => {
    const topic = run.name(suffix)
    const configEntries = Object.entries(configs).map(([name, value]) => ({ name, value }))
    equal(await admin.createTopics({ topics: [{ topic, numPartitions: partitions, configEntries }] }), true)
    const known = async () => (await admin.fetchTopicMetadata({ topics: [topic] }))[0].partitions.length
    await until(`${topic} is known`, async () => await known().catch(() => 0) === partitions)
    return topic
  }),

  async produce(run, topic, records, { codec = 'none', idempotent = false, size = records.length }) {
    const compression = Object.values(CompressionTypes).find(name => name === codec)
    const producer = connect(run).producer({ kafkaJS: { idempotent, compression }, 'linger.ms': 5, 'message.max.bytes': 1_048_588 })
    await producer.connect()
    try {
      for (let i = 0; i < records.length; i += size) await producer.send({ topic, messages: records.slice(i, i + size).map(message) })
    } finally {
      await producer.disconnect()
    }
  },

  async read(run, topic, count, { committed = false }) {
    const member = await client.member(run, `reader-${committed}`, topic, { committed })
    await until(`${count} records arrive`, () => member.records.length >= count)
    await member.close()
    return member.records
  },

  async member(run, group, topic, { committed = false, protocol = 'classic', strategy = 'range' }) {
    const classic = {
      sessionTimeout: 6000, heartbeatInterval: 500,
      partitionAssigners: [Object.values(PartitionAssigners).find(name => name === strategy)]
    }
    const consumer = connect(run).consumer({
      kafkaJS: {
        groupId: run.name(group), fromBeginning: true, autoCommit: false, maxWaitTimeInMs: 100, readUncommitted: !committed,
        ...(protocol === 'classic' && classic)
      },
      'group.protocol': protocol
    })
    const records = []
    await consumer.connect()
    await consumer.subscribe({ topics: [topic] })
    await consumer.run({
      eachMessage: async ({ message: { key, value, headers, timestamp, offset }, partition }) => {
        records.push({ key, value, headers: entries(headers), timestamp: Number(timestamp), offset: Number(offset), partition })
      }
    })
    return {
      records,
      consumer,
      partitions: () => consumer.assignment().map(({ partition }) => partition),
      commit: () => consumer.commitOffsets([{ topic, partition: 0, offset: String(records.at(-1).offset + 1) }]),
      close: () => consumer.disconnect()
    }
  },

  committed: (run, group, topic) => withAdmin(run, async admin => {
    const found = await admin.fetchOffsets({ groupId: run.name(group), topics: [{ topic, partitions: [0] }] })
    return Math.max(-1, Number(found[0]?.partitions[0]?.offset ?? -1))
  }),

  async transactional(run) {
    const transactionalId = run.name('transactional')
    const producer = connect(run).producer({ kafkaJS: { transactionalId, transactionTimeout: 20000 }, 'linger.ms': 5 })
    await producer.connect()
    let transaction
    return {
      begin: async () => { transaction = await producer.transaction() },
      send: (topic, records) => transaction.send({ topic, messages: records.map(message) }),
      offsets: (member, _, topic, offset) => transaction.sendOffsets({
        consumer: member.consumer, topics: [{ topic, partitions: [{ partition: 0, offset: String(offset) }] }]
      }),
      commit: () => transaction.commit(),
      abort: () => transaction.abort(),
      close: () => producer.disconnect()
    }
  }
}

function adminChecks() {
  check('admin', 'topics are created, described and deleted', run => withAdmin(run, async admin => {
    const topic = await client.create(run, 'topic', { partitions: 2 })
    const [{ name, partitions }] = await admin.fetchTopicMetadata({ topics: [topic] })
    equal([name, partitions.map(({ partitionId }) => partitionId)], [topic, [0, 1]])
    equal(await admin.createTopics({ topics: [{ topic }] }), false)
    await admin.deleteTopics({ topics: [topic] })
    await until('the topic is gone', async () => !(await admin.listTopics()).includes(topic))
    equal(/unknown topic/i.test(await rejection(admin.deleteTopics({ topics: [topic] }))), true)
  }))

  check('admin', 'a group is listed, described and deleted', run => withAdmin(run, async admin => {
    const topic = await client.create(run, 'topic', {})
    const groupId = run.name('group')
    await client.produce(run, topic, ofValues(['a', 'b', 'c']), {})
    const member = await client.member(run, 'group', topic, {})
    await until('everything is read', () => member.records.length === 3)
    await member.commit()
    const { groups: [group] } = await admin.describeGroups([groupId])
    equal([group.groupId, group.members.length], [groupId, 1])
    const listed = async () => (await admin.listGroups()).groups.some(found => found.groupId === groupId)
    equal(await listed(), true)
    await member.close()
    equal(await client.committed(run, 'group', topic), 3)
    equal((await admin.deleteGroups([groupId])).map(({ errorCode }) => errorCode ?? 0), [0])
    equal(await listed(), false)
  }))

  check('admin', 'offsets are found by time, and deleting records moves the start', run => withAdmin(run, async admin => {
    const topic = await client.create(run, 'topic', {})
    const times = [1000, 2000, 3000].map(time => 1_700_000_000_000 + time)
    await client.produce(run, topic, times.map(timestamp => ({ key: null, value: Buffer.from('v'), timestamp })), {})
    equal(Number((await admin.fetchTopicOffsetsByTimestamp(topic, times[0] + 1))[0].offset), 1)
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '2' }] })
    const [{ low, high }] = await admin.fetchTopicOffsets(topic)
    equal([Number(low), Number(high)], [2, 3])
  }))
}

if (library) {
  recordChecks(client, Object.values(CompressionTypes))
  groupChecks(client, Object.values(PartitionAssigners))
  nextGenerationChecks(client)
  transactionChecks(client)
  adminChecks()
  lacks('share groups', '@confluentinc/kafka-javascript 1.10 has no share consumer')
}
main(`@confluentinc/kafka-javascript ${version}`)
