import { AsyncResource, executionAsyncResource } from 'node:async_hooks'
import { setFlagsFromString } from 'node:v8'
import { runInThisContext } from 'node:vm'
import t from 'tap'
import { keepNextTickFast } from '../../plugins/gateway/next-tick.js'

// An idle server lost the hidden class of ticks in a full collection, and each tick cost five times
// as much from then on.
t.test('the object that is kept has the hidden class of the objects that Node makes for ticks', async t => {
  setFlagsFromString('--allow-natives-syntax')
  const haveSameMap = runInThisContext('(a, b) => %HaveSameMap(a, b)') as (a: object, b: object) => boolean
  const tick = await new Promise<object>(resolve => { process.nextTick(() => { resolve(executionAsyncResource()) }) })
  t.ok('callback' in tick)
  t.equal(haveSameMap(tick, keepNextTickFast()), true)
  t.equal(haveSameMap(new AsyncResource('OTHER'), keepNextTickFast()), false, 'the comparison can tell')
})

t.test('it is made once', async t => {
  t.equal(keepNextTickFast(), keepNextTickFast())
})
