/** `instanceof DOMException` fails across realms (tests, frames); the brand does not. */
export function isDomException(error: unknown): error is DOMException {
  return Object.prototype.toString.call(error) === '[object DOMException]' || error instanceof DOMException
}
