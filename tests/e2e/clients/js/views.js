#!/usr/bin/env node
// Reads a topic or view through KafkaJS from its start: the offsets must be those given. A consumer that does not come past what is hidden
// would wait for ever. Usage: views.js BOOTSTRAP TOPIC OFFSETS (JSON).
'use strict'

const assert = require('node:assert')
const { Kafka, logLevel } = require('kafkajs')

const DEADLINE_MS = 40_000

async function main([bootstrap, topic, offsets]) {
  const expected = JSON.parse(offsets)
  const consumer = new Kafka({ brokers: [bootstrap], logLevel: logLevel.ERROR }).consumer({ groupId: `js-${topic}`, maxWaitTimeInMs: 100 })
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  const seen = []
  await new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error(`only ${seen.length} of ${expected.length} records of ${topic} came: ${seen.slice(-5)}`)), DEADLINE_MS).unref()
    consumer.run({
      eachMessage: async ({ message }) => {
        seen.push(Number(message.offset))
        if (seen.length === expected.length) resolve()
      }
    })
  })
  await consumer.disconnect()
  assert.deepStrictEqual(seen, expected)
}

main(process.argv.slice(2)).then(() => process.exit(0), error => {
  console.error(error)
  process.exit(1)
})
