// Which numbers of a JSON text a double carries (P-6). Only asked about those that have many digits
// or an exponent.

/** Every double is told from its neighbours by so many significant digits. */
const MAX_FRACTION_DIGITS = 17
/**
 * How far a double may lie from the text that stands for it, in hundredths of that text's last
 * digit. Half a unit is the nearest double. The rest is for printers that miss the nearest 17th
 * digit by a hair (Grisu2 in common C++ libraries, Java before 19); their text names the double all
 * the same.
 */
const MAX_ROUNDING_PERCENT = 52n
/** A literal of so many characters has no more digits than every double keeps. */
export const SAFE_LITERAL_LENGTH = 15

/**
 * Whether a number, carried as a double, is still the one that was written. An integer has to keep
 * its value. A fraction, or what has an exponent, is taken for the text of a double, so it has to
 * name one: 0.1, 1e23, 0.30000000000000004 and C's 0.10000000000000001 do; 1e400, 1e-400,
 * 0.12345678901234567890 and 999999999999999.99 do not.
 */
export function isKept (literal: string): boolean {
  const value = Number(literal)
  // The usual spellings first, without the cost of printing: up to 15 digits, however they are
  // written, name one double far from either end of the range.
  if (isFarFromEnds(value) && mantissaLength(literal) <= SAFE_LITERAL_LENGTH) return true
  const printed = String(value)
  if (printed === literal) return true
  if (!Number.isFinite(value)) return false
  // C's %.17g, without taking digits apart.
  if (literal.includes('.') && value.toPrecision(MAX_FRACTION_DIGITS) === literal) return true
  const wanted = readDecimal(literal)
  const carried = readDecimal(printed)
  if (wanted.digits === carried.digits && wanted.exponent === carried.exponent) return true
  if (!/[.eE]/.test(literal) || wanted.digits.length > MAX_FRACTION_DIGITS || value === 0) return false
  // The same double with three digits more than any text of one has.
  const exact = readDecimal(value.toPrecision(MAX_FRACTION_DIGITS + 3))
  const low = Math.min(wanted.exponent, exact.exponent)
  const unit = 10n ** BigInt(wanted.exponent - low)
  const distance = BigInt(wanted.digits) * unit - BigInt(exact.digits) * 10n ** BigInt(exact.exponent - low)
  return (distance < 0n ? -distance : distance) * 100n <= unit * MAX_ROUNDING_PERCENT
}

/** Whether doubles around it are as dense as they are anywhere. */
function isFarFromEnds (value: number): boolean {
  const magnitude = Math.abs(value)
  return magnitude > 1e-300 && magnitude < 1e300
}

/** Characters before the exponent. */
function mantissaLength (literal: string): number {
  const end = literal.search(/[eE]/)
  return end === -1 ? literal.length : end
}

/**
 * `digits` × 10^`exponent`, without a zero at either end; zero is '' and 0. The sign is left out.
 */
function readDecimal (literal: string): { digits: string, exponent: number } {
  const [mantissa = '', power = '0'] = (literal.startsWith('-') ? literal.slice(1) : literal).toLowerCase().split('e')
  const [whole = '', fraction = ''] = mantissa.split('.')
  const all = whole + fraction
  let start = 0
  while (all[start] === '0') start++
  let end = all.length
  while (end > start && all[end - 1] === '0') end--
  if (start === end) return { digits: '', exponent: 0 }
  return { digits: all.slice(start, end), exponent: Number(power) - fraction.length + all.length - end }
}
