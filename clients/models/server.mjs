// An MCP server on the official TypeScript SDK that reports what it did with `packages/typescript`, which ACTIONS_PACKAGE names. Standard
// input and output.

import { Server } from '@modelcontextprotocol/server';
import { StdioServerTransport } from '@modelcontextprotocol/server/stdio';

const { Actions } = await import(process.env.ACTIONS_PACKAGE);
const actions = new Actions();
const server = new Server({ name: 'orders', version: '1' }, { capabilities: { tools: {} } });
const inputSchema = { type: 'object', properties: { order_id: { type: 'string' } } };
const text = (words) => ({ content: [{ type: 'text', text: words }] });

server.setRequestHandler('tools/list', () => ({
  tools: ['get_order', 'refund_order'].map((name) => ({ name, description: name, inputSchema })),
}));
server.setRequestHandler('tools/call', async ({ params }, context) => {
  const { order_id } = params.arguments;
  if (params.name === 'get_order') return text(`${order_id}: 3 cairns`);
  const event = await actions.report(context, { system: 'zendesk', kind: 'ticket', id: `T-${order_id}`, state: 'created' });
  return text(`refunded, reported as ${event}`);
});
await server.connect(new StdioServerTransport());
