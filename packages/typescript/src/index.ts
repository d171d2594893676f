/**
 * Tells Cairn what an MCP server did downstream for a call.
 *
 * The handle in `_meta["io.cairn/call"]` says which call that was; it is a secret of the server's. See docs/actions.md of Cairn.
 */

const META = "io.cairn/call";
const TRIES = 4;
const PASSING = [408, 429, 502, 503, 504];

/** What a server did somewhere else. */
export interface Action {
  /** Where, such as `zendesk`. */
  system: string;
  /** What it is there, such as `ticket`. */
  kind: string;
  /** Its id there. */
  id: string;
  /** How it stands, such as `created`. */
  state: string;
  /** When, RFC 3339. */
  occurred_at?: string;
  /** The action's own key; without one the same words for the same call are the same action. */
  idempotency_key?: string;
}

/** Where Cairn is, and as whom it is told. */
export interface Options {
  /** `MCP_ACTIONS_URL` where absent. */
  url?: string;
  /** An API key; `MCP_ACTIONS_KEY` where absent. */
  key?: string;
  /** How long one try may take, in milliseconds. */
  timeoutMs?: number;
  /** The pause before the second try; it doubles with each. */
  pauseMs?: number;
}

/** Cairn did not take the action; `status` is its answer's, 0 where there was none. */
export class NotReported extends Error {
  readonly status: number;

  constructor(status: number, reason: string) {
    super(reason);
    this.name = "NotReported";
    this.status = status;
  }
}

/** The handle of a call, from the SDK's context, from a request's `_meta`, or as it is; nothing where there is none. */
export function handleOf(source: unknown): string | undefined {
  if (typeof source === "string") return source || undefined;
  const of = (value: unknown, name: string): unknown =>
    typeof value === "object" && value !== null ? (value as Record<string, unknown>)[name] : undefined;
  const places = [source, of(source, "_meta"), of(of(source, "mcpReq"), "_meta"), of(of(source, "params"), "_meta")];
  const found = places.map((place) => of(place, META)).find((value) => typeof value === "string" && value !== "");
  return found as string | undefined;
}

/** Reports actions to one Cairn. */
export class Actions {
  readonly #url: string;
  readonly #key: string | undefined;
  readonly #timeoutMs: number;
  readonly #pauseMs: number;

  constructor(options: Options = {}) {
    const environment: Record<string, string | undefined> =
      (globalThis as { process?: { env: Record<string, string | undefined> } }).process?.env ?? {};
    this.#url = (options.url ?? environment["MCP_ACTIONS_URL"] ?? "").replace(/\/+$/, "");
    this.#key = options.key ?? environment["MCP_ACTIONS_KEY"];
    this.#timeoutMs = options.timeoutMs ?? 10_000;
    this.#pauseMs = options.pauseMs ?? 250;
  }

  /** Adds an action to a call; the id of its event, once it is durable. Nothing where the call did not come through Cairn. */
  async report(call: unknown, action: Action): Promise<string | undefined> {
    const handle = handleOf(call);
    if (handle === undefined) return undefined;
    if (this.#url === "") throw new NotReported(0, "where is Cairn? set MCP_ACTIONS_URL, or give url");
    const body = JSON.stringify({ actions: [{ call: handle, ...action }] });
    let failed = new NotReported(0, "nothing was tried");
    for (let tried = 0; tried < TRIES; tried += 1) {
      if (tried > 0) await new Promise((resolve) => setTimeout(resolve, this.#pauseMs * 2 ** tried));
      const outcome = await this.#send(body);
      if (typeof outcome === "string") return outcome;
      failed = outcome;
      // An action that is sent twice counts once, so what may pass is tried again.
      if (failed.status !== 0 && !PASSING.includes(failed.status)) break;
    }
    throw failed;
  }

  async #send(body: string): Promise<string | NotReported> {
    const headers: Record<string, string> = { "content-type": "application/json" };
    if (this.#key !== undefined) headers["authorization"] = `Bearer ${this.#key}`;
    try {
      const signal = AbortSignal.timeout(this.#timeoutMs);
      const response = await fetch(`${this.#url}/v1/actions`, { method: "POST", headers, body, signal });
      const answer = (await response.json().catch(() => ({}))) as { error?: string; actions?: { event_id: string }[] };
      const event = answer.actions?.[0]?.event_id;
      if (response.ok && event !== undefined) return event;
      return new NotReported(response.status, answer.error ?? `Cairn answered ${response.status}`);
    } catch (error) {
      return new NotReported(0, `Cairn at ${this.#url} does not answer: ${String(error)}`);
    }
  }
}
