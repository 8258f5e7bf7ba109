import { stat } from 'node:fs/promises'
import { dirname } from 'node:path'

/** The account that the server runs as, where that is not our own. */
export interface Account {
  readonly uid: number
  readonly gid: number
}

/** PostgreSQL refuses to run as root, and initdb as a user who is not in /etc/passwd: 65534 is "nobody" there. */
const nobody: Account = { uid: 65_534, gid: 65_534 }

export function serverAccount(): Account | null {
  return ownUid() === 0 ? nobody : null
}

/** -1 where the system has no user ids. */
export function ownUid(): number {
  return process.getuid?.() ?? -1
}

/** Whether the account may pass through this folder and all folders above it. */
export async function mayEnter(folder: string, account: Account): Promise<boolean> {
  const { uid, mode } = await stat(folder)
  const pass = uid === account.uid ? 0o100 : 0o001
  if ((mode & pass) === 0) return false
  const above = dirname(folder)
  return above === folder || mayEnter(above, account)
}
