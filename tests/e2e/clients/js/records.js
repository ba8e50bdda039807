// The checks that every JavaScript client can be given, through an adapter that each program writes for its client:
//
//   repeatedHeaders, appendTime                       whether it can show a name that repeats, and the time of appending
//   create(run, suffix, { partitions, configs })      makes a topic and returns its name
//   produce(run, topic, records, { codec, idempotent, size })   a record is { key, value, headers, timestamp, partition }
//   read(run, topic, count, { committed })            the first records of a topic; committed: of ended transactions only
//   member(run, group, topic, { protocol, strategy }) joins a group: { records, partitions(), commit(), close() }
//   committed(run, group, topic)                      the group's committed offset of partition 0 as a number, -1 for none
//   transactional(run)                                { begin(), send(topic, records), offsets(member, group, topic, offset),
//                                                       commit(), abort(), close() }
'use strict'

const crypto = require('node:crypto')
const { check, equal, lacks, pause, rejection, until } = require('./matrix')

const bytes = text => Buffer.from(text)
const values = records => records.map(record => String(record.value))
const numbered = (prefix, count) => Array.from({ length: count }, (_, i) => `${prefix}${i}`)
const ofValues = texts => texts.map(text => ({ key: null, value: bytes(text) }))
const EVERYTHING = [0, 1, 2, 3]

// Key, value and headers of records, in a form that can be compared; null, empty and text differ.
const plain = records => records.map(({ key, value, headers }) => ({
  key: key == null ? null : key.toString('hex'),
  value: value == null ? null : value.toString('hex'),
  headers: (headers ?? []).map(([name, content]) => [name, content.toString('hex')])
}))

// Records that compress well, badly and not at all.
function shapes() {
  const contents = [bytes('small'), bytes('compressible '.repeat(300)), crypto.randomBytes(2000), bytes('')]
  return numbered('key ', 50).flatMap(key => contents.map(value => ({ key: bytes(key), value, headers: [['key', bytes(key)]] })))
}

async function roundTrip(client, run, records, options = {}) {
  const topic = await client.create(run, 'topic', {})
  await client.produce(run, topic, records, options)
  equal(plain(await client.read(run, topic, records.length, {})), plain(records))
}

function appendTimeCheck(client) {
  const claim = "a topic with message.timestamp.type=LogAppendTime replaces the producer's times"
  if (!client.appendTime) return lacks('timestamps', "it shows the producer's time whatever the topic says", claim)
  check('timestamps', claim, async run => {
    const topic = await client.create(run, 'topic', { configs: { 'message.timestamp.type': 'LogAppendTime' } })
    await client.produce(run, topic, [{ key: null, value: bytes('v'), timestamp: 1_000_000 }], {})
    const [{ timestamp }] = await client.read(run, topic, 1, {})
    equal(Math.abs(timestamp - Date.now()) < 60_000, true)
  })
}

function recordChecks(client, codecs) {
  for (const codec of codecs) {
    check(codec, `200 records produced with ${codec} come back as they were`, run => roundTrip(client, run, shapes(), { codec }))
  }
  check('headers', 'repeated names, empty, binary and large header values come back', run => roundTrip(client, run, [
    { key: bytes('k'), value: bytes('v'), headers: [['a', bytes('1')], ['b', bytes('2')], ['empty', bytes('')]] },
    { key: bytes('k'), value: bytes('v'), headers: [['é', Buffer.from([...Array(256).keys()])], ['long', bytes('x'.repeat(5000))]] },
    ...(client.repeatedHeaders ? [{ key: bytes('k'), value: bytes('v'), headers: [['a', bytes('1')], ['a', bytes('2')]] }] : []),
    { key: bytes('k'), value: bytes('v'), headers: [] }
  ]))
  check('nulls', 'a null key, a null value and both stay null', run => roundTrip(client, run, [
    { key: null, value: bytes('v') }, { key: bytes('k'), value: null }, { key: null, value: null }
  ]))
  check('empty values', 'empty keys and values are not turned into nulls', run => roundTrip(client, run, [
    { key: bytes(''), value: bytes('') }, { key: bytes('k'), value: bytes('') }, { key: bytes(''), value: bytes('v') }
  ]))
  check('1 MB', 'a record of 1,000,000 random bytes comes back as it was', run => roundTrip(client, run, [
    { key: bytes('big'), value: crypto.randomBytes(1_000_000) }
  ]))
  check('1 MB', "a record above the topic's max.message.bytes is refused as too large", async run => {
    const topic = await client.create(run, 'topic', { configs: { 'max.message.bytes': '100000' } })
    const error = await rejection(client.produce(run, topic, [{ key: null, value: crypto.randomBytes(200_000) }], {}))
    equal(/too large|larger than/i.test([error, ...(error.errors ?? [])].map(String).join()), true)
  })
  check('timestamps', "the producer's times come back", async run => {
    const topic = await client.create(run, 'topic', {})
    const times = numbered('', 20).map(i => 1_700_000_000_000 + i * 1000)
    await client.produce(run, topic, times.map(timestamp => ({ key: null, value: bytes('v'), timestamp })), {})
    equal((await client.read(run, topic, 20, {})).map(record => record.timestamp), times)
  })
  appendTimeCheck(client)
  check('idempotence', '20 batches of an idempotent producer are there once, in order', async run => {
    const topic = await client.create(run, 'topic', {})
    const wanted = numbered('', 1000)
    await client.produce(run, topic, ofValues(wanted), { idempotent: true, size: 50 })
    equal(values(await client.read(run, topic, 1000, {})), wanted)
  })
}

async function commitAndResume(client, run, options) {
  const topic = await client.create(run, 'topic', {})
  await client.produce(run, topic, ofValues(numbered('a', 30)), {})
  const first = await client.member(run, 'group', topic, options)
  await until('the first member reads', () => first.records.length === 30)
  await first.commit()
  await first.close()
  equal(await client.committed(run, 'group', topic), 30)
  await client.produce(run, topic, ofValues(numbered('b', 20)), {})
  const second = await client.member(run, 'group', topic, options)
  await until('the second member goes on', () => second.records.length === 20)
  await second.close()
  equal(values(second.records), numbered('b', 20))
}

async function comeAndGo(client, run, options) {
  const topic = await client.create(run, 'topic', { partitions: 4 })
  const sorted = member => [...member.partitions()].sort()
  const isAll = member => String(sorted(member)) === String(EVERYTHING)
  const first = await client.member(run, 'group', topic, options)
  await until('a lone member has everything', () => isAll(first))
  const second = await client.member(run, 'group', topic, options)
  await until('two members have half each', () => {
    const [one, two] = [sorted(first), sorted(second)]
    return one.length === 2 && two.length === 2 && String([...one, ...two].sort()) === String(EVERYTHING)
  })
  await first.close()
  await until('the one that stays takes over', () => isAll(second))
  await second.close()
}

function groupChecks(client, strategies) {
  check('group', 'a member that comes later goes on where the committed offset is', run => commitAndResume(client, run, {}))
  for (const strategy of strategies) {
    check('rebalance', `${strategy}: members that come and go share four partitions`, run => comeAndGo(client, run, { strategy }))
  }
}

function nextGenerationChecks(client) {
  const options = { protocol: 'consumer' }
  check('KIP-848', 'a member that comes later goes on where the committed offset is', run => commitAndResume(client, run, options))
  check('KIP-848', 'members that come and go share four partitions', run => comeAndGo(client, run, options))
}

function transactionChecks(client) {
  check('transactions', 'readers of committed data see what was committed and nothing of what was aborted', async run => {
    const topic = await client.create(run, 'topic', {})
    const producer = await client.transactional(run)
    for (const [number, end] of ['commit', 'abort', 'commit'].entries()) {
      await producer.begin()
      await producer.send(topic, ofValues(numbered(`${number}-`, 10)))
      await producer[end]()
    }
    await producer.close()
    equal(values(await client.read(run, topic, 20, { committed: true })), [...numbered('0-', 10), ...numbered('2-', 10)])
    equal((await client.read(run, topic, 30, {})).length, 30)
  })
  check('transactions', 'an open transaction holds back readers of committed data until it ends', async run => {
    const topic = await client.create(run, 'topic', {})
    await client.produce(run, topic, ofValues(['before']), {})
    const producer = await client.transactional(run)
    await producer.begin()
    await producer.send(topic, ofValues(['inside']))
    await client.produce(run, topic, ofValues(['after']), {})
    const reader = await client.member(run, 'group', topic, { committed: true })
    await until('the reader gets what came before', () => reader.records.length > 0)
    await pause(500)
    equal(values(reader.records), ['before'])
    await producer.commit()
    await until('the reader gets the rest', () => reader.records.length === 3)
    equal(values(reader.records), ['before', 'inside', 'after'])
    await reader.close()
    await producer.close()
  })
  check('transactions', 'consumed offsets are committed with the records made from them, or not at all', async run => {
    const [source, target] = [await client.create(run, 'source', {}), await client.create(run, 'target', {})]
    await client.produce(run, source, ofValues(numbered('', 20)), {})
    const reader = await client.member(run, 'group', source, {})
    await until('everything is read', () => reader.records.length === 20)
    const producer = await client.transactional(run)
    for (const [end, upTo] of [['abort', 20], ['commit', 10]]) {
      await producer.begin()
      await producer.send(target, ofValues(values(reader.records).slice(0, upTo).map(value => `copy ${value}`)))
      await producer.offsets(reader, run.name('group'), source, upTo)
      await producer[end]()
      if (end === 'abort') equal(await client.committed(run, 'group', source), -1)
    }
    await until('the offset is committed', async () => await client.committed(run, 'group', source) === 10)
    await reader.close()
    await producer.close()
    equal(values(await client.read(run, target, 10, { committed: true })), numbered('copy ', 10))
  })
  check('transactions', 'a second producer with the same id fences the first', async run => {
    const topic = await client.create(run, 'topic', {})
    const first = await client.transactional(run)
    await first.begin()
    await first.send(topic, ofValues(['lost']))
    const second = await client.transactional(run)
    await second.begin()
    await second.send(topic, ofValues(['kept']))
    await rejection(first.commit())
    await second.commit()
    await second.close()
    await first.close().catch(() => {}) // Its state after being fenced is the client's affair.
    equal(values(await client.read(run, topic, 1, { committed: true })), ['kept'])
  })
}

module.exports = { groupChecks, nextGenerationChecks, numbered, ofValues, recordChecks, transactionChecks }
