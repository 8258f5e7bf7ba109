/** How a job can end for good. */
export type FinalState = 'completed' | 'cancelled' | 'discarded' | 'quarantined'

/**
 * One recorded fact. `job` and `token` are the ids as text. `at` is the database's clock in microseconds, read by
 * `clock_timestamp()` in the statement that did it: `now()` is the start of the transaction and proves nothing about order.
 */
export type HistoryEvent =
  /** `acked: false`: the enqueuer was not told whether it succeeded. */
  | { readonly kind: 'enqueued'; readonly job: string; readonly acked: boolean }
  | {
      readonly kind: 'claimed'
      readonly job: string
      readonly token: string
      readonly node: string
      readonly attempt: number
      readonly at: number
    }
  /** The handler began. A handler may begin without knowing that its lease is lost, so this is counted, not judged. */
  | {
      readonly kind: 'started'
      readonly job: string
      readonly token: string
      readonly node: string
      readonly at: number
    }
  /** A holder wrote the outcome of its attempt, final or not. `accepted`: its statement changed a row, and committed. */
  | {
      readonly kind: 'finalized'
      readonly job: string
      readonly token: string
      readonly node: string
      readonly state: FinalState | (string & {})
      readonly accepted: boolean
      readonly at: number
    }
  /**
   * The token was taken back: by rescue, or handed back at shutdown. Each of them has to be recorded, else the next
   * claim looks like a second holder; a trigger on the jobs table misses none.
   */
  | { readonly kind: 'released'; readonly job: string; readonly token: string; readonly at: number }
  /** Found in the final table after the drain. */
  | { readonly kind: 'terminal'; readonly job: string; readonly state: FinalState | (string & {}) }
  /** An effect row that a handler wrote in its completing transaction, found after the drain. */
  | { readonly kind: 'effect'; readonly job: string; readonly token: string }

export type EventOf<Kind extends HistoryEvent['kind']> = Extract<HistoryEvent, { kind: Kind }>

const finalStates: ReadonlySet<string> = new Set<FinalState>([
  'completed',
  'cancelled',
  'discarded',
  'quarantined',
])

export function isFinal(state: string): boolean {
  return finalStates.has(state)
}
