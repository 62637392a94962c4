// The address of a peer, however a proxy wrote it.

import fc from 'fast-check'
import t from 'tap'
import {
  addressOfPeer, canonicalAddress, canonicalRange, createAddressMatcher, limitKeyOf, proxyRangeProblem
} from '../../../src/io/names/address.js'
import { FUZZ_SEED } from '../../helpers/fuzz-seed.js'

// Azure's gateway writes `ip:port`: each connection was an address of its own, and the limits by
// address had no effect.
t.test('an address is one text, however it is written', async t => {
  const forms: Record<string, string[]> = {
    '203.0.113.9': [
      '203.0.113.9', '203.0.113.9:51234', ' 203.0.113.9 ', '::ffff:203.0.113.9', '::FFFF:cb00:7109',
      '[::ffff:203.0.113.9]:80', '"203.0.113.9:7"'
    ],
    '2001:db8::1': [
      '2001:db8::1', '2001:DB8::1', '2001:0db8:0000:0000:0000:0000:0000:0001', '2001:db8:0:0::1', '[2001:db8::1]',
      '[2001:DB8::1]:443', '"[2001:db8::1]:4711"'
    ],
    'fe80::1': ['fe80::1', 'fe80::1%eth0', '[fe80::1%25]:80', 'FE80::1%whatever-somebody-wrote'],
    '::1': ['::1', '0:0:0:0:0:0:0:1']
  }
  for (const [canonical, texts] of Object.entries(forms)) {
    for (const text of texts) t.equal(canonicalAddress(text), canonical, text)
  }
})

t.test('what is not an address is not made into one', async t => {
  const texts = [
    undefined, '', ' ', 'unknown', '_hidden', 'localhost', '1', '10.1', '0x7f.0.0.1', '010.0.0.1', '256.0.0.1', '1.2.3',
    '1.2.3.4.5', '1.2.3.4:port', '1.2.3.4:123456',
    '[1.2.3.4', '1.2.3.4]', '2001:db8::1::2', '[2001:db8::1]x', 'for=1.2.3.4', '1.2.3.4, 5.6.7.8', '1.2.3.4/8',
    '1.2.3.4%eth0', '::1/128', 'x'.repeat(5000), '1.2.3.4\n'.repeat(2)
  ]
  for (const text of texts) t.equal(canonicalAddress(text), undefined, String(text).slice(0, 20))
})

t.test('the canonical form is its own canonical form', async () => {
  fc.assert(fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), text => {
    const address = canonicalAddress(text)
    return address !== undefined && canonicalAddress(address) === address &&
      canonicalAddress(`[${address.toUpperCase()}]:9`) === address
  }), { seed: FUZZ_SEED, numRuns: 1000 })
})

t.test('four numbers are taken as they stand only where they are canonical', async () => {
  const number = fc.oneof(
    fc.integer({ min: 0, max: 300 }).map(String), fc.constantFrom('00', '01', '010', '', ' 1', '1\n', '0x1')
  )
  // Quotes keep a text from being taken as it stands.
  fc.assert(fc.property(fc.array(number, { minLength: 3, maxLength: 5 }), numbers => {
    const text = numbers.join('.')
    return canonicalAddress(text) === canonicalAddress(`"${text.trim()}"`)
  }), { seed: FUZZ_SEED, numRuns: 2000 })
})

t.test('limits count an IPv4 address, and of IPv6 the /64 that whoever has one address has', async t => {
  t.equal(limitKeyOf('203.0.113.9'), '203.0.113.9')
  t.equal(limitKeyOf('2001:db8:1:2:3:4:5:6'), limitKeyOf('2001:db8:1:2::'))
  t.equal(limitKeyOf('2001:db8:1:2::5'), '2001:db8:1:2::/64')
  t.not(limitKeyOf('2001:db8:1:3::'), limitKeyOf('2001:db8:1:2::'))
  t.not(limitKeyOf('64:ff9b::cb00:7109'), limitKeyOf('64:ff9b::cb00:710a'), 'all of IPv4 is in one /64 behind NAT64')
  t.equal(limitKeyOf(''), '')
})

t.test('where a trusted proxy wrote nonsense, the last address on the way is the client\'s', async t => {
  t.equal(addressOfPeer({ ip: '198.51.100.7:80' }), '198.51.100.7')
  t.equal(addressOfPeer({ ip: 'unknown', ips: ['127.0.0.1', '10.0.0.5:4', 'unknown'] }), '10.0.0.5')
  t.equal(addressOfPeer({ ip: 'unknown', ips: ['127.0.0.1', 'unknown'] }), '127.0.0.1')
  t.equal(addressOfPeer({ ip: undefined }), '', 'no socket')
})

t.test('a range is canonical, and finds addresses in every form', async t => {
  for (const [text, canonical] of [
    ['10.0.0.7/8', '10.0.0.0/8'], ['10.0.0.7', '10.0.0.7'], ['10.0.0.7/32', '10.0.0.7'], ['FD00::1/8', 'fd00::/8'],
    ['::1/128', '::1'], ['::ffff:10.0.0.7/104', '10.0.0.0/8']
  ] as const) {
    t.equal(proxyRangeProblem(text), undefined, text)
    t.equal(canonicalRange(text), canonical)
    t.equal(canonicalRange(canonical), canonical)
  }
  const isProxy = createAddressMatcher(['10.0.0.0/8', 'fd00::/8'])
  for (const text of ['10.1.2.3', '10.1.2.3:8080', '::ffff:10.1.2.3', '[FD00::9]:1', 'fd12:3456::1%eth0']) {
    t.ok(isProxy(text), text)
  }
  for (const text of ['11.0.0.1', 'fe80::1', '::ffff:11.0.0.1', 'unknown', '', undefined]) {
    t.notOk(isProxy(text), String(text))
  }
  t.notOk(createAddressMatcher([])('10.0.0.1'))
})

t.test('a range that no peer can be in, or that every peer is in, is refused', async t => {
  for (const text of [
    '', '1', 'true', 'loopback', '10.0.0', '10.0.0.0/', '10.0.0.0/8/8', '10.0.0.0/x', '[::1]', '10.0.0.1:80',
    'proxy.example', '10.0.0.0/255.0.0.0'
  ]) {
    t.match(proxyRangeProblem(text), /neither an IP address nor/, text)
  }
  for (const text of ['10.0.0.0/33', '::1/129', '::ffff:10.0.0.0/90']) {
    t.match(proxyRangeProblem(text), /not a range/, text)
  }
  for (const text of ['0.0.0.0/0', '::/0']) t.match(proxyRangeProblem(text), /holds every address/, text)
  t.match(proxyRangeProblem('fe80::1%eth0'), /zone/)
  t.throws(
    () => createAddressMatcher(['10.0.0.0/8', 'proxy.example']),
    { code: 'CONFIG_INVALID', message: /proxy\.example/ }
  )
})
