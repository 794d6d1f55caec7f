/** Small things kept in the browser. A browser that forbids storage (private windows, full disk) forgets, and works. */
import { isDomException } from './dom'

export function readStored(key: string): string | null {
  try {
    return localStorage.getItem(key)
  } catch (error) {
    if (isDomException(error)) return null
    throw error
  }
}

export function writeStored(key: string, value: string | null): void {
  try {
    if (value === null) localStorage.removeItem(key)
    else localStorage.setItem(key, value)
  } catch (error) {
    if (!isDomException(error)) throw error
  }
}
