/** Of every random test: printed when it fails, and set to run it again. */
export const FUZZ_SEED = Number(process.env.FUZZ_SEED ?? 20260101)
