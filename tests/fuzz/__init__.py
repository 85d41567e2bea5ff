"""Whatever bytes come in: they come back exactly, or an error says why and nothing is stored."""
