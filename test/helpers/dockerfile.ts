// A Dockerfile as a list of stages with their instructions, as far as ours goes.

export interface Instruction { readonly name: string, readonly text: string }
export interface Stage { readonly instructions: readonly Instruction[] }

/** Joins continued lines and leaves comments out. */
export function readDockerfile (text: string): Stage[] {
  const lines = text.split('\n').filter(line => !line.startsWith('#')).join('\n').replaceAll(/\\\n\s*/g, '').split('\n')
  const stages: { instructions: Instruction[] }[] = []
  for (const line of lines.filter(line => line.trim() !== '')) {
    const [, name, text] = /^([A-Z]+) (.*)$/.exec(line) ?? []
    if (name === undefined || text === undefined) throw new Error(`not an instruction: ${line}`)
    if (name === 'FROM') stages.push({ instructions: [] })
    stages.at(-1)?.instructions.push({ name, text })
  }
  return stages
}

/** The texts of one kind of instruction. */
export function textsOf ({ instructions }: Stage, name: string): string[] {
  return instructions.filter(each => each.name === name).map(({ text }) => text)
}
