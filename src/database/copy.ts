import { once } from 'node:events'
import pg, { type Client } from 'pg'

/** The part of pg's connection that a COPY needs; its types leave it out. */
interface CopyConnection {
  sendCopyFromChunk(chunk: Buffer): void
  endCopyFrom(): void
  sendCopyFail(message: string): void
}

/** pg's own query, except that it has an answer when the server asks for the rows. */
class CopyIn extends pg.Query {
  readonly #chunks: Iterable<string>
  /** What came out of the making of the chunks: the server knows only that there will be no more. */
  fault: unknown = null

  constructor(text: string, chunks: Iterable<string>) {
    super(text)
    this.#chunks = chunks
  }

  handleCopyInResponse(connection: CopyConnection): void {
    try {
      for (const chunk of this.#chunks) connection.sendCopyFromChunk(Buffer.from(chunk))
      connection.endCopyFrom()
    } catch (error) {
      this.fault = error
      connection.sendCopyFail('the rows could not be made')
    }
  }
}

/**
 * Runs a COPY … FROM STDIN. The server works on the first chunks while later ones are made.
 * @throws what pg throws for a query, and what `chunks` throws
 */
export async function copyIn(client: Client, text: string, chunks: Iterable<string>): Promise<void> {
  const copy = new CopyIn(text, chunks)
  try {
    await once(client.query(copy), 'end')
  } catch (error) {
    throw copy.fault ?? error
  }
}
