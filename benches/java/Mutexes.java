// Curator's InterProcessMutex as a contender: so many threads, each with a mutex of its own.
//
// Reads one line for each slice of time, its length in milliseconds, and answers with the number of
// cycles in it. A cycle that is cut off counts in part.

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.retry.RetryNTimes;

public class Mutexes {
    public static void main(String[] arguments) throws Exception {
        int threads = Integer.parseInt(arguments[1]);
        CuratorFramework client =
                CuratorFrameworkFactory.newClient(arguments[0], 6000, 6000, new RetryNTimes(5, 100));
        client.start();
        client.blockUntilConnected();
        List<InterProcessMutex> mutexes = new ArrayList<>();
        for (int thread = 0; thread < threads; thread++) {
            mutexes.add(new InterProcessMutex(client, "/curator/" + thread));
        }
        ExecutorService executor = Executors.newFixedThreadPool(threads);
        System.out.println("ready");
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            long until = System.nanoTime() + Long.parseLong(line) * 1_000_000;
            List<Callable<Double>> tasks = new ArrayList<>();
            for (InterProcessMutex mutex : mutexes) {
                tasks.add(() -> repeat(mutex, until));
            }
            double cycles = 0;
            for (Future<Double> done : executor.invokeAll(tasks)) {
                cycles += done.get();
            }
            System.out.println(cycles);
        }
        System.exit(0);
    }

    private static double repeat(InterProcessMutex mutex, long until) throws Exception {
        double cycles = 0;
        for (long began = System.nanoTime(); began < until; ) {
            mutex.acquire();
            mutex.release();
            long ended = System.nanoTime();
            cycles += Math.min(1.0, (double) (until - began) / (ended - began));
            began = ended;
        }
        return cycles;
    }
}
