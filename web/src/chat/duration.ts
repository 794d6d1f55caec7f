/** Durations in words. */
type Translate = (key: 'duration.seconds' | 'duration.minutes', named: Record<string, number | string>) => string

/** `12 s`, `3 min 5 s`; below ten seconds with one decimal when `precise`. */
export function inWords(t: Translate, seconds: number, { precise = false } = {}): string {
  if (precise && seconds < 9.95) return t('duration.seconds', { n: seconds.toFixed(1) })
  const whole = Math.max(0, Math.round(seconds))
  if (whole < 60) return t('duration.seconds', { n: whole })
  return t('duration.minutes', { m: Math.floor(whole / 60), s: whole % 60 })
}
