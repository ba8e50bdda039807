// Runs the checks of one client's program and prints one JSON line per check, as ../matrix.py does for the Python clients.
//
// A program registers functions with check(feature, claim, function), and with lacks(feature, reason) what its client cannot do, then
// calls main(client). A check fails by throwing; one that runs past its deadline fails instead of hanging. Exit status 1 if one failed.
'use strict'

const assert = require('node:assert')
const crypto = require('node:crypto')
const { parseArgs } = require('node:util')

const FEATURES = ['none', 'gzip', 'snappy', 'lz4', 'zstd', 'headers', 'nulls', 'empty values', '1 MB', 'timestamps', 'group',
  'rebalance', 'idempotence', 'transactions', 'KIP-848', 'share groups', 'admin']
const WAIT_MS = 25_000
const CHECK_DEADLINE_MS = 50_000
const POLL_MS = 50

const checks = []
const lacking = []

function check(feature, claim, body) {
  assert(FEATURES.includes(feature), feature)
  checks.push({ feature, claim, body })
}

function lacks(feature, reason, claim) {
  assert(FEATURES.includes(feature), feature)
  lacking.push({ feature, reason, claim })
}

const pause = ms => new Promise(resolve => setTimeout(resolve, ms))

// What a value looks like in a failure's detail.
function shown(value) {
  const plain = (_, inner) => typeof inner === 'bigint' ? `${inner}n` : inner instanceof Set ? [...inner] : inner
  return String(JSON.stringify(value, plain)).slice(0, 500)
}

function equal(seen, wanted) {
  try {
    assert.deepStrictEqual(seen, wanted)
  } catch {
    throw new Error(`${shown(seen)} instead of ${shown(wanted)}`)
  }
}

// Calls `probe` until it answers with something true, and returns that.
async function until(what, probe) {
  const end = Date.now() + WAIT_MS
  for (;;) {
    const answer = await probe()
    if (answer) return answer
    if (Date.now() > end) throw new Error(`not within ${WAIT_MS} ms: ${what}, ${shown(answer)}`)
    await pause(POLL_MS)
  }
}

// The error that a promise is rejected with; an error of its own if it is not.
async function rejection(promise) {
  let value
  try {
    value = await promise
  } catch (error) {
    return error
  }
  throw new Error(`no error but ${shown(value)}`)
}

function report(client, feature, check, result, detail) {
  process.stdout.write(JSON.stringify({ client, feature, check, result, ...(detail && { detail: detail.slice(0, 1000) }) }) + '\n')
}

async function one(client, run, { feature, claim, body }) {
  const started = Date.now()
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not finished after ${CHECK_DEADLINE_MS} ms`)), CHECK_DEADLINE_MS)
  })
  let result = 'pass'
  let detail
  try {
    await Promise.race([body(run), late])
  } catch (error) {
    result = 'fail'
    const causes = (error.errors ?? []).map(cause => cause.message).join('; ')
    detail = `${error.name}: ${error.message} ${causes}`.trim()
    process.stderr.write(`${error.stack}\n`)
  }
  clearTimeout(timer)
  process.stderr.write(`${((Date.now() - started) / 1000).toFixed(1)} s  ${result}  ${feature}: ${claim}\n`)
  report(client, feature, claim, result, detail)
  return result
}

// Runs the registered checks as the command line says, and ends the process.
async function main(client) {
  const { values } = parseArgs({
    options: {
      bootstrap: { type: 'string' },
      prefix: { type: 'string', default: `j${crypto.randomBytes(3).toString('hex')}` },
      only: { type: 'string', default: '' },
      parallel: { type: 'string', default: '6' }
    }
  })
  assert(values.bootstrap, '--bootstrap HOST:PORT is missing')
  const name = client.split(' ')[0]
  for (const { feature, reason, claim } of lacking) report(client, feature, claim ?? `${name} has ${feature}`, 'skip', reason)
  const waiting = checks.map((entry, number) => ({ ...entry, number }))
    .filter(entry => entry.feature.includes(values.only) || entry.claim.includes(values.only))
  let failed = false
  const worker = async () => {
    for (let entry = waiting.shift(); entry; entry = waiting.shift()) {
      const { number } = entry
      const run = { bootstrap: values.bootstrap, name: suffix => `${values.prefix}-${number}-${suffix}` }
      if (await one(client, run, entry) === 'fail') failed = true
    }
  }
  await Promise.all(Array.from({ length: Number(values.parallel) }, worker))
  process.exit(failed ? 1 : 0)
}

module.exports = { FEATURES, check, equal, lacks, main, pause, rejection, until }
