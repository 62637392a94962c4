// Stored forms of sessions, for tests of stores and of what writes to them.

export { buildBatch, buildStored, buildTombstone } from '../../contract/forms.js'
