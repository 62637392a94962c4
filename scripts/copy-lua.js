// The Lua scripts of the Redis store beside the compiled code, where it reads them.

import { cpSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const folder = 'src/stores/redis/scripts'
const root = new URL('..', import.meta.url)
cpSync(fileURLToPath(new URL(folder, root)), fileURLToPath(new URL(`dist/${folder}`, root)), { recursive: true })
