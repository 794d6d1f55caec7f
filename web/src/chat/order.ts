/** Orders moments as the server writes them (ISO 8601 with or without fractions of a second), then ids. */
export function compareTimes(a: string, b: string): number {
  // A browser's clock ends at milliseconds; below, the digits decide, and "01" is before "01.000001".
  return Date.parse(a) - Date.parse(b) || compareText(a.replace('Z', ''), b.replace('Z', ''))
}

/** By code units: the same in every language of the browser. */
export function compareText(a: string, b: string): number {
  return a < b ? -1 : Number(a > b)
}
