"""Study of the paper's claims with small models at equal budgets."""
