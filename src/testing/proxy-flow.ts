import type { Socket } from 'node:net'
import { systemClock } from '../kernel/index.js'

/** What a flow asks its connection before bytes pass. */
interface FlowGate {
  /** Sees bytes as they arrive, before any delay. */
  arrived(bytes: Buffer): void
  /** True while nothing may pass. */
  held(): boolean
  /** True while the source is read although nothing may pass. */
  readsWhileHeld(): boolean
  /** Sees bytes as they leave; false means that the connection dealt with them and the flow is over. */
  leaving(bytes: Buffer): boolean
}

/** `bytes: null` is the end of the stream: it keeps its place behind the bytes. */
interface Parcel {
  readonly bytes: Buffer | null
  due: boolean
}

/** Above this the source is not read any more, so that a slow sink or a long delay cannot fill the memory. */
const waitingBytesMax = 1024 * 1024

/** One direction of a connection: what the source sends waits here until it is due, may pass, and fits into the sink. */
export class Flow {
  delayMs = 0
  bytes = 0
  readonly #source: Socket
  readonly #sink: Socket
  readonly #gate: FlowGate
  readonly #parcels: Parcel[] = []
  #waitingBytes = 0
  #over = false

  constructor(source: Socket, sink: Socket, gate: FlowGate) {
    this.#source = source
    this.#sink = sink
    this.#gate = gate
    source.on('data', (bytes) => {
      if (typeof bytes !== 'string') this.#arrive(bytes)
    })
    source.on('end', () => this.#arrive(null))
    sink.on('drain', () => this.pump())
  }

  /** Passes what may pass now; called whenever something changed. */
  pump(): void {
    while (!this.#over && this.#ready()) this.#pass(this.#parcels.shift()?.bytes ?? null)
    const closedGate = this.#gate.held() && !this.#gate.readsWhileHeld()
    if (!this.#over && (closedGate || this.#waitingBytes > waitingBytesMax)) this.#source.pause()
    else this.#source.resume()
  }

  /** Nothing passes from here on; what the source still sends is read and dropped. */
  finish(): void {
    this.#over = true
    this.#parcels.length = 0
    this.#source.resume()
  }

  #arrive(bytes: Buffer | null): void {
    if (this.#over) return
    const parcel: Parcel = { bytes, due: this.delayMs === 0 }
    this.#parcels.push(parcel)
    this.#waitingBytes += bytes?.length ?? 0
    if (bytes !== null) this.#gate.arrived(bytes)
    if (!parcel.due) {
      systemClock.timer(this.delayMs, () => {
        parcel.due = true
        this.pump()
      })
    }
    this.pump()
  }

  #ready(): boolean {
    return this.#parcels[0]?.due === true && !this.#gate.held() && !this.#sink.writableNeedDrain
  }

  #pass(bytes: Buffer | null): void {
    if (bytes === null) {
      this.#sink.end()
      return
    }
    this.#waitingBytes -= bytes.length
    if (!this.#gate.leaving(bytes)) return
    this.bytes += bytes.length
    this.#sink.write(bytes)
  }
}
