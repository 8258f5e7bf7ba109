import { ForgeError, invalidOption } from '../kernel/index.js'
import type { Runtime } from '../runtime/index.js'
import type { Beat } from './beater.js'
import { Campaign, type LeaderWork } from './campaign.js'
import type { Lead, TermTimes } from './leads.js'

/** Topic of the signals port: somebody gave a role up; the key is the role. */
const resignedTopic = 'cluster.resigned'

/** What leadership needs of the pulse. */
interface Campaigner {
  readonly gaveUpMs: number
  campaign(wanted: readonly string[]): void
  resign(roles: readonly string[]): Promise<void>
}

/** The roles that this process would lead. */
export class Leadership {
  readonly #runtime: Runtime
  readonly #times: TermTimes
  readonly #pulse: Campaigner
  readonly #campaigns = new Map<string, Campaign>()
  readonly #leaving = new Set<Campaign>()
  /** What PostgreSQL last said went wrong with a role. */
  readonly #faults = new Map<string, string>()
  /** Roles that are to be given up, all in one call. */
  #resigning: { readonly roles: Set<string>; readonly done: Promise<void> } | null = null
  #asked = '[]'
  #stopped = false
  #off: () => void = () => {}

  constructor(runtime: Runtime, times: TermTimes, pulse: Campaigner) {
    this.#runtime = runtime
    this.#times = times
    this.#pulse = pulse
  }

  start(): void {
    this.#off = this.#runtime.signals.subscribe(resignedTopic, (roles) => {
      if (roles === null || roles.some((role) => this.#campaigns.get(role)?.wanted)) this.#ask(true)
    })
  }

  /** @throws ForgeError FORGE_DUPLICATE_NAME, FORGE_STOPPED */
  whileLeading(role: string, work: LeaderWork): Campaign {
    if (this.#stopped) throw new ForgeError('FORGE_STOPPED')
    const before = this.#campaigns.get(role)
    if (before && !before.ended)
      throw new ForgeError('FORGE_DUPLICATE_NAME', `This node asks for role '${role}' already.`)
    const { clock, log } = this.#runtime
    const campaign = new Campaign(role, work, {
      clock,
      log,
      changed: () => this.#ask(false),
      resign: (given) => this.#resign(given),
      after: before?.settled(),
    })
    this.#campaigns.set(role, campaign)
    this.#ask(false)
    return campaign
  }

  /** One that has ended is forgotten when nothing of it is left. */
  #forgetEnded(): void {
    for (const campaign of this.#campaigns.values()) {
      if (!campaign.ended || this.#leaving.has(campaign)) continue
      this.#leaving.add(campaign)
      void campaign.settled().then(() => {
        this.#leaving.delete(campaign)
        if (this.#campaigns.get(campaign.role) === campaign) this.#campaigns.delete(campaign.role)
      })
    }
  }

  heard({ leads, sentAtMs }: Pick<Beat, 'leads' | 'sentAtMs'>): void {
    if (leads === null) return
    // What was asked before the thread gave everything up says nothing of now.
    const stale = sentAtMs <= this.#pulse.gaveUpMs
    const byRole = new Map<string, Lead>(stale ? [] : leads.map((lead) => [lead.role, lead]))
    for (const [role, campaign] of [...this.#campaigns]) {
      this.#noteFault(role, byRole.get(role)?.fault ?? null)
      campaign.heard(byRole.get(role), { sentAtMs, trustedUntilMs: sentAtMs + this.#times.leadMs })
    }
  }

  shaken(): void {
    for (const campaign of [...this.#campaigns.values()]) campaign.shaken()
  }

  loseAll(why: string): void {
    for (const campaign of [...this.#campaigns.values()]) campaign.lose(why)
  }

  /** Gives up everything, so that others begin. */
  async stop(): Promise<void> {
    this.#stopped = true
    this.#off()
    await Promise.all([...this.#campaigns.values()].map((campaign) => campaign.end()))
  }

  #ask(anyway: boolean): void {
    this.#forgetEnded()
    const wanted = [...this.#campaigns.values()].filter(({ wanted }) => wanted).map(({ role }) => role)
    const asked = JSON.stringify(wanted)
    if (asked === this.#asked && !anyway) return
    this.#asked = asked
    this.#pulse.campaign(wanted)
  }

  #resign(role: string): Promise<void> {
    this.#resigning ??= this.#resignSoon(new Set())
    this.#resigning.roles.add(role)
    return this.#resigning.done
  }

  #resignSoon(roles: Set<string>): { readonly roles: Set<string>; readonly done: Promise<void> } {
    const done = Promise.resolve().then(async () => {
      this.#resigning = null
      await this.#pulse.resign([...roles])
      for (const role of roles) this.#runtime.signals.hint(resignedTopic, role)
    })
    return { roles, done }
  }

  #noteFault(role: string, fault: string | null): void {
    if ((this.#faults.get(role) ?? null) === fault) return
    if (fault === null) return void this.#faults.delete(role)
    this.#faults.set(role, fault)
    this.#runtime.log.error(`forge: nobody here can lead role '${role}': ${fault}`)
  }
}

/** Roles that forge leads itself; those of daemons begin with daemon: */
const ownRoles = ['scheduler', 'maintenance']

/** What a role may be called. */
export const isRole = (role: unknown): role is string =>
  typeof role === 'string' && /^[a-z0-9][a-z0-9._:/-]{0,199}$/i.test(role)

/** @throws ForgeError FORGE_OPTION_INVALID */
export function checkRole(role: unknown): void {
  if (ownRoles.includes(role as string) || (typeof role === 'string' && role.startsWith('daemon:')))
    throw invalidOption(
      'The role of whileLeading()',
      `is one of forge's own: ${ownRoles.join(', ')}, daemon:…`,
    )
  if (isRole(role)) return
  throw invalidOption(
    'The role of whileLeading()',
    'must be 1 to 200 letters, digits, dots, dashes, underscores, colons and slashes',
  )
}
