/**
 * News goes up: a room says what happened, and does not know who listens. Logs, metrics and tables subscribe.
 * A piece of news is a typed token that its sender declares, so that no central list pulls types upward.
 */
export interface News<Payload> {
  readonly name: string
  /** Only a carrier of the type; never set. */
  readonly payload?: Payload
}

export function news<Payload>(name: string): News<Payload> {
  return { name }
}

export interface NewsDesk {
  emit<Payload>(item: News<Payload>, payload: Payload): void
  /** Returns the function that ends the subscription. */
  on<Payload>(item: News<Payload>, listener: (payload: Payload) => void): () => void
}

/** A listener that throws is reported to `onFault` and never disturbs the sender or its neighbours. */
export function createNewsDesk(onFault: (error: unknown, name: string) => void): NewsDesk {
  const listeners = new Map<string, Set<(payload: never) => void>>()
  return {
    emit(item, payload) {
      for (const listener of listeners.get(item.name) ?? []) {
        try {
          listener(payload as never)
        } catch (error) {
          onFault(error, item.name)
        }
      }
    },
    on(item, listener) {
      const set = listeners.get(item.name) ?? new Set()
      listeners.set(item.name, set)
      set.add(listener)
      return () => set.delete(listener)
    },
  }
}
