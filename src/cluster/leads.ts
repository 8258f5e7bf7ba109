/** A role that this node leads, as the last renewal said; with a `fault`, one that it asked for in vain. */
export interface Lead {
  readonly role: string
  /** Random; what only the leader may write names it. */
  readonly term: string
  /** Rises with each term. */
  readonly n: number
  /** The pulse's connection holds the advisory lock of the role: others follow at once when it breaks. */
  readonly locked: boolean
  /** False: the row was locked, and the term stands as it was. */
  readonly renewed: boolean
  /** What PostgreSQL said; then there is no term. */
  readonly fault: string | null
}

/** Times of a term, in milliseconds. A term is shorter than the lease of a node, so that its work is taken over sooner. */
export interface TermTimes {
  /** A term is over so long after its last renewal. */
  readonly termMs: number
  /** How often it is renewed, and how often others look for one that is over. */
  readonly campaignMs: number
  /** A leader trusts its term only for so long after it sent the renewal. */
  readonly leadMs: number
}

/** 7 s, 2 s and 5 s of a lease of 10 s. */
export function termTimes(leaseMs: number, renewMs: number): TermTimes {
  return {
    termMs: leaseMs * 0.7,
    campaignMs: Math.min(renewMs, leaseMs * 0.2),
    leadMs: leaseMs * 0.5,
  }
}
