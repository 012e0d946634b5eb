"""People: accounts, sessions, API tokens, and slowing down those who guess."""
