import { once } from 'node:events'
import pg, { type Client, type Query } from 'pg'

/** The part of pg's connection that a COPY needs; its types leave it out. */
interface CopyConnection {
  sendCopyFromChunk(chunk: Buffer): void
  endCopyFrom(): void
  sendCopyFail(message: string): void
}

/** pg's own query takes no part in a COPY: it tells the server to give up. This is the method that does so. */
interface CopyQuery extends Query {
  handleCopyInResponse(connection: CopyConnection): void
}

/**
 * Runs a COPY … FROM STDIN. The server works on the first chunks while later ones are made.
 * @throws what pg throws for a query, and what `chunks` throws
 */
export async function copyIn(client: Client, text: string, chunks: Iterable<string>): Promise<void> {
  // Of the copy of pg that the client is from, which may be the host's: it takes no other for its own.
  const { Query: Made = pg.Query } = client.constructor as { Query?: typeof Query }
  const copy = new Made(text) as CopyQuery
  /** What came out of the making of the chunks: the server knows only that there will be no more. */
  let fault: unknown = null
  copy.handleCopyInResponse = (connection) => {
    try {
      for (const chunk of chunks) connection.sendCopyFromChunk(Buffer.from(chunk))
      connection.endCopyFrom()
    } catch (error) {
      fault = error
      connection.sendCopyFail('the rows could not be made')
    }
  }
  try {
    await once(client.query(copy), 'end')
  } catch (error) {
    throw fault ?? error
  }
}
