"""What a swarm costs and gains: real stages in processes of their own, a driving worker, hosts with distance."""
