"""Small models at equal budgets: which of the paper's claims hold."""
