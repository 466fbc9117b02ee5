// A Curator client that executes one command per line and prints "done" after each.
//
//   lock                 acquires the mutex
//   unlock               releases it
//   count FILE NUMBER    NUMBER times: acquires, increments the number in the file, releases

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.retry.RetryNTimes;

public class Curator {
    public static void main(String[] arguments) throws Exception {
        CuratorFramework client =
                CuratorFrameworkFactory.newClient(arguments[0], 4000, 4000, new RetryNTimes(5, 100));
        client.start();
        client.blockUntilConnected();
        InterProcessMutex mutex = new InterProcessMutex(client, arguments[1]);
        System.out.println("ready");
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] words = line.split(" ");
            switch (words[0]) {
                case "lock":
                    mutex.acquire();
                    break;
                case "unlock":
                    mutex.release();
                    break;
                default:
                    Path file = Path.of(words[1]);
                    for (int left = Integer.parseInt(words[2]); left > 0; left--) {
                        mutex.acquire();
                        int number = Integer.parseInt(Files.readString(file));
                        Thread.yield();
                        Files.writeString(file, Integer.toString(number + 1));
                        mutex.release();
                    }
            }
            System.out.println("done");
        }
        client.close();
    }
}
