"""The agent's side of the wire: AgentClient."""


class AgentClient:
    """To come."""
