#!/usr/bin/env node
// What KafkaJS can do with a cluster. Run with NODE_PATH set to the node_modules that tests/setup/js.sh fills; see matrix.js.
'use strict'

const zlib = require('node:zlib')
const { CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, logLevel } = require('kafkajs')
const { version } = require('kafkajs/package.json')
const snappy = require('kafkajs-snappy')
const { lz4Compress, lz4Decompress } = require('@platformatic/wasm-utils')
const { check, equal, lacks, main, rejection, until } = require('./matrix')
const { groupChecks, ofValues, recordChecks, transactionChecks } = require('./records')

// KafkaJS has gzip built in and takes the others from elsewhere.
CompressionCodecs[CompressionTypes.Snappy] = snappy
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async encoder => Buffer.from(lz4Compress(encoder.buffer)), decompress: async buffer => Buffer.from(lz4Decompress(buffer))
})
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async encoder => zlib.zstdCompressSync(encoder.buffer), decompress: async buffer => zlib.zstdDecompressSync(buffer)
})
const CODECS = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy, lz4: CompressionTypes.LZ4,
  zstd: CompressionTypes.ZSTD }

const connect = run => new Kafka({ brokers: [run.bootstrap], logLevel: logLevel.NOTHING, retry: { initialRetryTime: 50, retries: 8 } })

async function withAdmin(run, use) {
  const admin = connect(run).admin()
  await admin.connect()
  try {
    return await use(admin)
  } finally {
    await admin.disconnect()
  }
}

const entries = headers => Object.entries(headers ?? {}).flatMap(([name, found]) => [found].flat().map(value => [name, value]))

const message = ({ key, value, headers, timestamp, partition }) => ({
  key, value, partition, timestamp: timestamp && String(timestamp), headers: headers && grouped(headers)
})

// Headers as KafkaJS takes them: a name that repeats has a list.
function grouped(headers) {
  const found = {}
  for (const [name, value] of headers) found[name] = name in found ? [found[name], value].flat() : value
  return found
}

const client = {
  repeatedHeaders: true,
  appendTime: true,

  create: (run, suffix, { partitions = 1, configs = {} }) => withAdmin(run, async admin => {
    const configEntries = Object.entries(configs).map(([name, value]) => ({ name, value }))
    const topic = run.name(suffix)
    equal(await admin.createTopics({ topics: [{ topic, numPartitions: partitions, configEntries }], waitForLeaders: true }), true)
    return topic
  }),

  async produce(run, topic, records, { codec = 'none', idempotent = false, size = records.length }) {
    const producer = connect(run).producer({ idempotent })
    await producer.connect()
    try {
      for (let i = 0; i < records.length; i += size) {
        await producer.send({ topic, compression: CODECS[codec], messages: records.slice(i, i + size).map(message) })
      }
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

  async member(run, group, topic, { committed = false }) {
    const consumer = connect(run).consumer({
      groupId: run.name(group), sessionTimeout: 6000, rebalanceTimeout: 6000, heartbeatInterval: 300, maxWaitTimeInMs: 100,
      readUncommitted: !committed
    })
    let assigned = []
    const records = []
    consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => { assigned = payload.memberAssignment[topic] ?? [] })
    await consumer.connect()
    await consumer.subscribe({ topics: [topic], fromBeginning: true })
    await consumer.run({
      autoCommit: false,
      eachMessage: async ({ message: { key, value, headers, timestamp, offset }, partition }) => {
        records.push({ key, value, headers: entries(headers), timestamp: Number(timestamp), offset: Number(offset), partition })
      }
    })
    return {
      records,
      partitions: () => assigned,
      commit: () => consumer.commitOffsets([{ topic, partition: 0, offset: String(records.at(-1).offset + 1) }]),
      close: () => consumer.disconnect()
    }
  },

  committed: (run, group, topic) => withAdmin(run, async admin => {
    const [found] = await admin.fetchOffsets({ groupId: run.name(group), topics: [topic] })
    return Number(found.partitions.find(({ partition }) => partition === 0)?.offset ?? -1)
  }),

  async transactional(run) {
    const producer = connect(run).producer({
      transactionalId: run.name('transactional'), maxInFlightRequests: 1, idempotent: true, transactionTimeout: 20000
    })
    await producer.connect()
    let transaction
    return {
      begin: async () => { transaction = await producer.transaction() },
      send: (topic, records) => transaction.send({ topic, messages: records.map(message) }),
      offsets: (_, consumerGroupId, topic, offset) => transaction.sendOffsets({
        consumerGroupId, topics: [{ topic, partitions: [{ partition: 0, offset: String(offset) }] }]
      }),
      commit: () => transaction.commit(),
      abort: () => transaction.abort(),
      close: () => producer.disconnect()
    }
  }
}

recordChecks(client, Object.keys(CODECS))
groupChecks(client, ['roundrobin'])
transactionChecks(client)
lacks('KIP-848', 'KafkaJS 2.2 speaks the classic group protocol only')
lacks('share groups', 'KafkaJS 2.2 has no share consumer')

check('admin', 'topics are created, described, given partitions and deleted', run => withAdmin(run, async admin => {
  const topic = await client.create(run, 'topic', { partitions: 2 })
  await admin.createPartitions({ topicPartitions: [{ topic, count: 4 }] })
  const partitions = async () => (await admin.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions.length
  await until('four partitions are seen', async () => await partitions() === 4)
  equal(await admin.createTopics({ topics: [{ topic }] }), false)
  await admin.deleteTopics({ topics: [topic] })
  await until('the topic is gone', async () => !(await admin.listTopics()).includes(topic))
}))

check('admin', 'configs are described with their source and altered', run => withAdmin(run, async admin => {
  const topic = await client.create(run, 'topic', { configs: { 'retention.ms': '3600000' } })
  const resource = { type: ConfigResourceTypes.TOPIC, name: topic }
  const retention = async () => (await admin.describeConfigs({ resources: [resource], includeSynonyms: true }))
    .resources[0].configEntries.find(({ configName }) => configName === 'retention.ms').configValue
  equal(await retention(), '3600000')
  const changed = { ...resource, configEntries: [{ name: 'retention.ms', value: '7200000' }] }
  await admin.alterConfigs({ validateOnly: false, resources: [changed] })
  await until('the change is seen', async () => await retention() === '7200000')
}))

check('admin', 'a group is listed and described, its offsets are set and reset, and it is deleted', run => withAdmin(run, async admin => {
  const topic = await client.create(run, 'topic', {})
  const groupId = run.name('group')
  await client.produce(run, topic, ofValues(['a', 'b', 'c']), {})
  const member = await client.member(run, 'group', topic, {})
  await until('everything is read', () => member.records.length === 3)
  const { groups: [group] } = await admin.describeGroups([groupId])
  equal([group.groupId, group.state, group.members.length], [groupId, 'Stable', 1])
  equal((await admin.listGroups()).groups.some(found => found.groupId === groupId), true)
  await member.close()
  await admin.setOffsets({ groupId, topic, partitions: [{ partition: 0, offset: '2' }] })
  equal(await client.committed(run, 'group', topic), 2)
  await admin.resetOffsets({ groupId, topic, earliest: true })
  const [reset] = await admin.fetchOffsets({ groupId, topics: [topic], resolveOffsets: true })
  equal(reset.partitions[0].offset, '0')
  equal((await admin.deleteGroups([groupId])).map(({ errorCode }) => errorCode), [0])
  equal((await admin.listGroups()).groups.some(found => found.groupId === groupId), false)
}))

check('admin', 'offsets are found by time, and deleting records moves the start', run => withAdmin(run, async admin => {
  const topic = await client.create(run, 'topic', {})
  const times = [1000, 2000, 3000].map(time => 1_700_000_000_000 + time)
  await client.produce(run, topic, times.map(timestamp => ({ key: null, value: Buffer.from('v'), timestamp })), {})
  equal((await admin.fetchTopicOffsetsByTimestamp(topic, times[0] + 1))[0].offset, '1')
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '2' }] })
  const [{ low, high }] = await admin.fetchTopicOffsets(topic)
  equal([low, high], ['2', '3'])
}))

check('admin', 'the cluster describes itself, and a reassignment to where a partition is leaves none under way', run =>
  withAdmin(run, async admin => {
    const topic = await client.create(run, 'topic', {})
    const { brokers, clusterId } = await admin.describeCluster()
    equal([brokers.length, typeof clusterId], [1, 'string'])
    const replicas = [brokers[0].nodeId]
    await admin.alterPartitionReassignments({ topics: [{ topic, partitionAssignment: [{ partition: 0, replicas }] }] })
    equal((await admin.listPartitionReassignments({})).topics, [])
  }))

check('admin', 'without an authorizer, asking for ACLs answers SECURITY_DISABLED', run => withAdmin(run, async admin => {
  const any = { resourceType: 1, resourcePatternType: 1, operation: 1, permissionType: 1 }
  equal((await rejection(admin.describeAcls(any))).type, 'SECURITY_DISABLED')
}))

main(`kafkajs ${version}`)
