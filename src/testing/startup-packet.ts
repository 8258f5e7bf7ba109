/**
 * What the first bytes of a PostgreSQL client say about its connection. `opaque` is everything that cannot be read:
 * TLS, or another protocol.
 * Source of the layout: PostgreSQL documentation, "Message Formats": SSLRequest, CancelRequest, StartupMessage.
 */
export type Opening =
  | { readonly kind: 'session'; readonly parameters: Readonly<Record<string, string>> }
  | { readonly kind: 'cancel' }
  | { readonly kind: 'opaque' }

/** PostgreSQL itself refuses longer startup packets (MAX_STARTUP_PACKET_LENGTH). */
export const startupBytesMax = 10_000

const headerBytes = 8
const cancelRequest = 80_877_102
const sslRequest = 80_877_103
const gssencRequest = 80_877_104
const opaque: Opening = { kind: 'opaque' }

/** Reads all that the client sent so far, from its first byte; `undefined` means that more is needed. */
export function readOpening(sent: Buffer): Opening | undefined {
  let offset = 0
  while (offset <= startupBytesMax) {
    // Each packet starts with its length, which is far below 2^24; so TLS (0x16) shows in its first byte.
    if (sent.length > offset && sent[offset] !== 0) return opaque
    if (sent.length < offset + headerBytes) return undefined

    const length = sent.readUInt32BE(offset)
    const code = sent.readUInt32BE(offset + 4)
    if (length < headerBytes || length > startupBytesMax) return opaque

    if (code !== sslRequest && code !== gssencRequest) {
      return readRequest(code, sent.subarray(offset), length)
    }
    // The server answers these. On a refusal the client goes on in plaintext, with a packet of its own.
    offset += headerBytes
  }
  return opaque
}

function readRequest(code: number, packet: Buffer, length: number): Opening | undefined {
  if (code === cancelRequest) return { kind: 'cancel' }
  if (code >>> 16 !== 3) return opaque
  if (packet.length < length) return undefined
  return { kind: 'session', parameters: readParameters(packet.subarray(headerBytes, length)) }
}

function readParameters(body: Buffer): Readonly<Record<string, string>> {
  const words = body.toString('utf8').split('\0')
  const parameters: [string, string][] = []
  for (let index = 0; index + 1 < words.length; index += 2) {
    const [name = '', value = ''] = words.slice(index, index + 2)
    if (name === '') break
    parameters.push([name, value])
  }
  return Object.freeze(Object.fromEntries(parameters))
}
