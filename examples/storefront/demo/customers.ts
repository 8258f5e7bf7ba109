const names = ['Ada', 'Edsger', 'Grace', 'Tony', 'Barbara', 'Donald', 'Frances', 'Alan', 'Radia', 'Niklaus']
const products = 6
const answerMsMax = 30_000

export interface Acknowledged {
  readonly id: string
  readonly jobs: Readonly<Record<string, string>>
}

/** Places one order as a browser would. @throws Error when the shop does not acknowledge it */
export async function orderSomething(url: string): Promise<Acknowledged> {
  const response = await fetch(`${url}/orders`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ customer: names[below(names.length)], items: randomItems() }),
    signal: AbortSignal.timeout(answerMsMax),
  })
  if (response.status !== 201) throw new Error(`the shop answered ${response.status}`)
  return (await response.json()) as Acknowledged
}

function randomItems(): { productId: number; quantity: number }[] {
  const chosen = new Set(Array.from({ length: 1 + below(3) }, () => 1 + below(products)))
  return [...chosen].map((productId) => ({ productId, quantity: 1 + below(3) }))
}

function below(limit: number): number {
  return Math.floor(Math.random() * limit)
}
