import t from 'tap'
import { isLoopbackHost, isLoopbackName } from '../src/loopback.js'

t.test('a Host header of this machine is a loopback name or address, with or without a port', t => {
  for (const host of ['localhost', 'LOCALHOST:3000', '127.0.0.1', '127.8.9.1:80', '[::1]', '[::1]:3000']) {
    t.equal(isLoopbackHost(host), true, host)
  }
  for (const host of [
    '', 'evil.example', 'localhost.evil.example', '127.0.0.1.evil.example', '::1', '[127.0.0.1]', '10.0.0.1',
    'localhost:3000:1', '[::2]'
  ]) {
    t.equal(isLoopbackHost(host), false, host)
  }
  t.end()
})

t.test('a name of this machine alone is localhost or a loopback address', t => {
  for (const name of ['localhost', '127.0.0.1', '::1']) t.equal(isLoopbackName(name), true, name)
  for (const name of ['0.0.0.0', '::', 'example.org', '']) t.equal(isLoopbackName(name), false, name)
  t.end()
})
