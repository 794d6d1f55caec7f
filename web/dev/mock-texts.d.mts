export const REASONING: string
export const ANSWERS: { zh: string; en: string; code: string; sky: string; long: string }
