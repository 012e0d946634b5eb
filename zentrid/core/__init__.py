"""Pure decisions: states, policies, variables, grammar. Nothing here does I/O or imports asyncio."""
