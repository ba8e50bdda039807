#!/usr/bin/env node
// What @platformatic/kafka can do with a cluster. Run with NODE_PATH set to the node_modules that tests/setup/js.sh fills; see matrix.js.
'use strict'

const { Admin, ConfigResourceTypes, Consumer, Producer } = require('@platformatic/kafka')
const fs = require('node:fs')
const path = require('node:path')
const { check, equal, lacks, main, rejection, until } = require('./matrix')
const { groupChecks, nextGenerationChecks, ofValues, recordChecks, transactionChecks } = require('./records')

const home = path.dirname(path.dirname(require.resolve('@platformatic/kafka')))
const { version } = JSON.parse(fs.readFileSync(path.join(home, 'package.json'), 'utf8'))

const base = run => ({ clientId: 'matrix', bootstrapBrokers: [run.bootstrap], retries: 20, retryDelay: 100, autocreateTopics: false })

async function withAdmin(run, use) {
  const admin = new Admin(base(run))
  try {
    return await use(admin)
  } finally {
    await admin.close()
  }
}

const message = topic => ({ key, value, headers, timestamp, partition }) => ({
  topic, key: key ?? undefined, value: value ?? undefined, partition, timestamp: timestamp && BigInt(timestamp),
  headers: new Map((headers ?? []).map(([name, content]) => [Buffer.from(name), content]))
})

const client = {
  repeatedHeaders: false, // They are a map.
  appendTime: false, // It shows the producer's time.

  create: (run, suffix, { partitions = 1, configs = {} }) => withAdmin(run, async admin => {
    const topic = run.name(suffix)
    const settings = Object.entries(configs).map(([name, value]) => ({ name, value }))
    await admin.createTopics({ topics: [topic], partitions, replicas: 1, configs: settings })
    const known = async () => (await admin.metadata({ topics: [topic], forceUpdate: true })).topics.get(topic)?.partitionsCount
    await until(`${topic} is known`, async () => await known().catch(() => 0) === partitions)
    return topic
  }),

  async produce(run, topic, records, { codec = 'none', idempotent = false, size = records.length }) {
    const producer = new Producer({ ...base(run), idempotent, acks: -1 }) // By default it does not wait until records can be read.
    try {
      for (let i = 0; i < records.length; i += size) {
        await producer.send({ compression: codec, messages: records.slice(i, i + size).map(message(topic)) })
      }
    } finally {
      await producer.close()
    }
  },

  async read(run, topic, count, { committed = false }) {
    const member = await client.member(run, `reader-${committed}`, topic, { committed })
    await until(`${count} records arrive`, () => member.records.length >= count)
    await member.close()
    return member.records.slice(0, count)
  },

  async member(run, group, topic, { committed = false, protocol = 'classic' }) {
    const timeouts = protocol === 'classic' ? { sessionTimeout: 6000, rebalanceTimeout: 6000, heartbeatInterval: 300 } : {}
    const consumer = new Consumer({
      ...base(run), groupId: run.name(group), groupProtocol: protocol, ...timeouts, maxWaitTime: 100, autocommit: false,
      isolationLevel: committed ? 1 : 0
    })
    const records = []
    const stream = await consumer.consume({ topics: [topic], mode: 'committed', fallbackMode: 'earliest' })
    stream.on('error', error => process.stderr.write(`${error.stack}\n`))
    stream.on('data', original => {
      const { key, value, headerEntries, timestamp, offset, partition, leaderEpoch } = original
      const headers = headerEntries.map(([name, content]) => [String(name), content])
      records.push({ key, value, headers, timestamp: Number(timestamp), offset: Number(offset), partition, leaderEpoch, original })
    })
    return {
      records,
      consumer,
      partitions: () => consumer.assignments?.find(found => found.topic === topic)?.partitions ?? [],
      commit: () => consumer.commit({
        offsets: [{ topic, partition: 0, offset: BigInt(records.at(-1).offset + 1), leaderEpoch: records.at(-1).leaderEpoch }]
      }),
      close: () => consumer.close(true)
    }
  },

  committed: (run, group, topic) => withAdmin(run, async admin => {
    const asked = { groupId: run.name(group), topics: [{ name: topic, partitionIndexes: [0] }] }
    const [found] = await admin.listConsumerGroupOffsets({ groups: [asked] })
    return Number(found.topics[0]?.partitions[0]?.committedOffset ?? -1)
  }),

  async transactional(run) {
    const transactionalId = run.name('transactional')
    const producer = new Producer({ ...base(run), transactionalId, idempotent: true, acks: -1 })
    const fresh = { producerId: -1n, producerEpoch: -1 } // Its defaults claim to be producer 0, which is fenced if it is not.
    let transaction
    return {
      begin: async () => { transaction = await producer.beginTransaction(fresh) },
      send: (topic, records) => transaction.send({ messages: records.map(message(topic)) }),
      offsets: async (member, _, topic, offset) => {
        await transaction.addConsumer(member.consumer)
        await transaction.addOffset(member.records[offset - 1].original)
      },
      commit: () => transaction.commit(),
      abort: () => transaction.abort(),
      close: () => producer.close(true)
    }
  }
}

recordChecks(client, ['none', 'gzip', 'snappy', 'lz4', 'zstd'])
groupChecks(client, ['roundrobin'])
nextGenerationChecks(client)
transactionChecks(client)
lacks('share groups', '@platformatic/kafka 2.12 has no share consumer')

check('admin', 'topics are created, listed, given partitions and deleted', run => withAdmin(run, async admin => {
  const topic = await client.create(run, 'topic', { partitions: 2 })
  await admin.createPartitions({ topics: [{ name: topic, count: 4, assignments: null }] })
  const partitions = async () => (await admin.metadata({ topics: [topic], forceUpdate: true })).topics.get(topic).partitionsCount
  await until('four partitions are seen', async () => await partitions() === 4)
  const refused = await rejection(admin.createTopics({ topics: [topic] }))
  equal(refused.errors[0].errors[0].apiId, 'TOPIC_ALREADY_EXISTS')
  await admin.deleteTopics({ topics: [topic] })
  await until('the topic is gone', async () => !(await admin.listTopics()).includes(topic))
}))

check('admin', 'configs are described, altered and altered incrementally', run => withAdmin(run, async admin => {
  const topic = await client.create(run, 'topic', { configs: { 'retention.ms': '3600000' } })
  const resource = { resourceType: ConfigResourceTypes.TOPIC, resourceName: topic }
  const retention = async () => (await admin.describeConfigs({ resources: [{ ...resource, configurationKeys: ['retention.ms'] }] }))[0]
    .configs[0].value
  equal(await retention(), '3600000')
  await admin.alterConfigs({ resources: [{ ...resource, configs: [{ name: 'retention.ms', value: '7200000' }] }] })
  await until('the change is seen', async () => await retention() === '7200000')
  const change = { name: 'retention.ms', configOperation: 0, value: '1800000' }
  await admin.incrementalAlterConfigs({ resources: [{ ...resource, configs: [change] }] })
  await until('the second change is seen', async () => await retention() === '1800000')
}))

check('admin', 'a group is listed and described, its offsets are altered and deleted, and it is deleted', run =>
  withAdmin(run, async admin => {
    const topic = await client.create(run, 'topic', {})
    const groupId = run.name('group')
    await client.produce(run, topic, ofValues(['a', 'b', 'c']), {})
    const member = await client.member(run, 'group', topic, {})
    await until('everything is read', () => member.records.length === 3)
    const group = (await admin.describeGroups({ groups: [groupId] })).get(groupId)
    equal([group.state, group.members.size], ['Stable', 1])
    equal((await admin.listGroups()).has(groupId), true)
    await member.close()
    await admin.alterConsumerGroupOffsets({ groupId, topics: [{ name: topic, partitionOffsets: [{ partition: 0, offset: 2n }] }] })
    equal(await client.committed(run, 'group', topic), 2)
    await admin.deleteConsumerGroupOffsets({ groupId, topics: [{ name: topic, partitionIndexes: [0] }] })
    equal(await client.committed(run, 'group', topic), -1)
    await admin.alterConsumerGroupOffsets({ groupId, topics: [{ name: topic, partitionOffsets: [{ partition: 0, offset: 2n }] }] })
    await admin.deleteGroups({ groups: [groupId] })
    equal((await admin.listGroups()).has(groupId), false)
  }))

check('admin', 'offsets are found by time, deleting records moves the start, and log directories have the partition', run =>
  withAdmin(run, async admin => {
    const topic = await client.create(run, 'topic', {})
    const times = [1000, 2000, 3000].map(time => 1_700_000_000_000 + time)
    await client.produce(run, topic, times.map(timestamp => ({ key: null, value: Buffer.from('v'), timestamp })), {})
    const offset = async timestamp => (await admin.listOffsets({
      topics: [{ name: topic, partitions: [{ partitionIndex: 0, timestamp }] }]
    }))[0].partitions[0].offset
    equal([await offset(BigInt(times[0] + 1)), await offset(-2n), await offset(-1n)], [1n, 0n, 3n])
    const [trimmed] = await admin.deleteRecords({ topics: [{ name: topic, partitions: [{ partition: 0, offset: 2n }] }] })
    equal(trimmed.partitions[0].lowWatermark, 2n)
    equal(await offset(-2n), 2n)
    const [{ results }] = await admin.describeLogDirs({ topics: [{ name: topic, partitions: [0] }] })
    equal(results.flatMap(({ topics }) => topics.map(({ name }) => name)), [topic])
  }))

check('admin', "a client's quota is set, described and removed", run => withAdmin(run, async admin => {
  const entities = [{ entityType: 'client-id', entityName: run.name('client') }]
  const alter = (value, remove) => admin.alterClientQuotas({ entries: [{ entities, ops: [{ key: 'producer_byte_rate', value, remove }] }] })
  const described = async () => (await admin.describeClientQuotas({
    components: [{ entityType: 'client-id', matchType: 0, match: run.name('client') }], strict: true
  })).flatMap(({ values }) => values.map(({ key, value }) => [key, Number(value)]))
  await alter(1_000_000, false)
  await until('the quota is seen', async () => JSON.stringify(await described()) === '[["producer_byte_rate",1000000]]')
  await alter(0, true)
  await until('the quota is gone', async () => (await described()).length === 0)
}))

main(`@platformatic/kafka ${version}`)
